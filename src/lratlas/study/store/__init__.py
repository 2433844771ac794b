"""The folder of a study: every file of it is read and written here."""
