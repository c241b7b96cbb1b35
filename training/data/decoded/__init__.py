"""Decoded images: in memory, in a cache on disk, or decoded again whenever they are used."""
