"""Health, status and, later, the page."""
