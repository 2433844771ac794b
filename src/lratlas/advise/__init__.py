"""Advice on learning rates: for a training that runs, and for one that is planned."""
