"""Embedding sets: vectors with labels, their files, hashes, and the one similarity."""
