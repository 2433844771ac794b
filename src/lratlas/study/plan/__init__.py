"""From a spec and what is there already to the jobs of a study. Nothing is trained here."""
