"""The regime of a training that is already running."""
