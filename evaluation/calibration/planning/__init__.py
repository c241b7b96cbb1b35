"""How much data a target takes: the classes that a bound needs, and the points that a split will carry."""
