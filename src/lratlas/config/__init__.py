"""Specs of studies with their sections, the presets, and the tasks that a spec names."""
