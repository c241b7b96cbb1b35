"""Choose a threshold for a target and prove it by resampling classes."""
