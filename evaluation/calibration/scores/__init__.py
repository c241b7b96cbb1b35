"""Kinds of score that are fitted on a cohort, one file each."""
