"""Loaded models, their versions and their recomputed reports."""
