"""The sets that a threshold is fitted, proven and measured on: checked, sampled, pooled, scored once."""
