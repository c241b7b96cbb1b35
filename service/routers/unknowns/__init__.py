"""Endpoints of the pool of unknowns: the pool, its groups, what is done with them, and the review queue."""
