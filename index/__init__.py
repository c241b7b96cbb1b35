"""Vectors and items: engines, bundle, self-recall audit."""
