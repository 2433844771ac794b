"""`find` for training code as it is: a function or a script, suspended in the middle of its loop."""
