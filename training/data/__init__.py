"""Files, archives and tables to labelled inputs, split into parts whose classes are disjoint."""
