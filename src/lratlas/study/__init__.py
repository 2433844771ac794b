"""Studies: plan, progress, and the folder they are stored in."""
