"""Compare two models on the same items."""
