"""Candidates, exact re-scoring and class-mean scores of one generation."""
