"""Training: update rules, the compiled step, stacks, averaging."""
