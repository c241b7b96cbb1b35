"""Embedding sets: their files, hashes, and the one similarity."""
