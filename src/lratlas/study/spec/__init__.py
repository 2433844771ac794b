"""What to study: specs and their parts, the presets, and the tasks that a spec names."""
