"""The live view: a page over HTTP that follows what it shows."""
