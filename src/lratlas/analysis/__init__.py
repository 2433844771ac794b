"""Tables to tables: regimes, boundaries, sparsity, and findings in sentences."""
