"""LR Atlas inside other libraries: Lightning, Hugging Face Transformers, Optuna, and experiment trackers.

Each module needs the library that it is named after, an extra of this package; none is imported by ``import lratlas``.
"""
