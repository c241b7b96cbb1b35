"""Data kinds: one class for each value of ``data.kind``."""
