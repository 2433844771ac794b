"""What to study: specs and their sections, the presets, and the tasks that a spec names."""
