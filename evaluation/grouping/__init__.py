"""Grouping of unlabelled vectors at a calibrated pair threshold."""
