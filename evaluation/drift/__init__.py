"""Drift: whether two samples of vectors, or two histograms of scores, are of one distribution."""
