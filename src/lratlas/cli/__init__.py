"""The command line: parse, call the same functions as from Python, print."""
