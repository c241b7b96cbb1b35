"""Errors, array types, atomic files, progress and optional packages, for every room."""
