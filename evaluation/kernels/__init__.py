"""Compiled loops over blocks of scores and over kept pairs."""
