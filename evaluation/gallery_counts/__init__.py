"""Counts of pairs per item of a gallery, brought up to date when items change."""
