"""From tables to tables: regimes, boundaries, sparsity, and what they say."""
