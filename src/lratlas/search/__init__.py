"""A search for the initial LR: what to train, what was measured, what it amounts to."""
