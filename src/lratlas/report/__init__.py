"""From tables to charts and the page."""
