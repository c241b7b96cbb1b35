"""Error rates over a grid of thresholds: what a threshold that is moved by hand is worth."""
