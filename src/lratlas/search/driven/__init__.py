"""`find` for unmodified training code: a function or a script, suspended in the middle of its loop."""
