"""Limen: train embeddings, measure one threshold, freeze it with its proof, serve the decision."""
