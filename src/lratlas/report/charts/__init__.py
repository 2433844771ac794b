"""Charts: for each its data, drawing and words."""
