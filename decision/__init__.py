"""Score kinds, accept rule and operating points applied: what calibration and serving must share."""
