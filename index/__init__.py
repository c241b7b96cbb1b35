"""Vectors and items: engines, search, item store, galleries and the bundle."""
