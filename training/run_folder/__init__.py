"""A run on disk: layout, weights, model card."""
