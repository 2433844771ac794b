"""The public functions: explore, find, compare, load, and their output files."""
