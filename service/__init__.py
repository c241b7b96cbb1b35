"""HTTP: decisions, reports and the dashboard."""
