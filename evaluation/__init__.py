"""Numbers out of arrays: retrieval, verification, identification, threshold consistency, calibration."""
