"""LR Atlas inside other libraries: Lightning, Hugging Face Transformers, Optuna, and experiment trackers.

Each module requires the library in its name, an extra of this package. ``import lratlas`` imports none of them.
"""
