"""Scores, the accept rule and operating points applied: what calibration and serving share."""
