"""Measurements on trained models; they never train."""
