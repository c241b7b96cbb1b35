"""Whole answers of a 1:N search: drawn over galleries of several sizes, and how likely each is right."""
