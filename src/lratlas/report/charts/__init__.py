"""Charts: the data, the drawing and the words of each."""
