"""Best estimates of error rates and of thresholds for them, where the data is too small for a bound."""
