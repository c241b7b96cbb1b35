"""Limen side by side with what one would use instead, each peer as its own documentation sets it up."""
