"""The pool of unknowns: queries that are kept, grouped, enrolled, matched again and reviewed."""
