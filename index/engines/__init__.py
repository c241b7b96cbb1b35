"""Engines that propose candidates: flat, HNSW, IVF-PQ."""
