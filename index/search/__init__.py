"""Searches in one view of a gallery: candidates, exact re-scoring, the rules of 1:N."""
