"""One threshold measured: an audit of one chosen elsewhere, rates by group, targets in every group."""
