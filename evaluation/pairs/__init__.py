"""All pairs of a set, counted exactly and in blocks."""
