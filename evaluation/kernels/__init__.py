"""Compiled inner loops over blocks of pairs."""
