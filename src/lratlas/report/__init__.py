"""Charts and pages from tables."""
