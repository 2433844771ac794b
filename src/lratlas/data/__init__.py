"""Data as tensors."""
