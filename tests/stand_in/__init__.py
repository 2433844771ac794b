"""A device for tests, which refuses what a GPU refuses and counts what a GPU waits for."""
