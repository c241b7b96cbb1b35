"""Bounded compute, admission, background jobs."""
