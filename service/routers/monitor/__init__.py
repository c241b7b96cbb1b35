"""Time series and alerts."""
