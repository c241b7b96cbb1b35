"""What the figures say: ratios and bars, as tables, as a plot, as a guard."""
