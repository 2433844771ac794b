"""Search for the initial LR: segments to train, their results, and the advice."""
