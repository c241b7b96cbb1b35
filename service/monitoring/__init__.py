"""What the service does now: time series, comparison with the calibration, drift, alerts, webhook."""
