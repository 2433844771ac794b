"""Studies: spec, plan, jobs, and the folder they are kept in."""
