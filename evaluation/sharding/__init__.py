"""Figures of one set measured by several processes, each on its own part of the pairs."""
