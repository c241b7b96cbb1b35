"""Copies under two labels are named, and the order of the rows changes no figure."""

import numpy as np

from embeddings.embedding_set import EmbeddingSet
from evaluation.evaluate import evaluate_embeddings

draw = np.random.default_rng(0)
labels = np.array([f"person {k}" for k in np.repeat(np.arange(20), 5)])
vectors = draw.normal(size=(20, 32)).repeat(5, axis=0) + 0.7 * draw.normal(size=(100, 32))
vectors[7], vectors[50] = vectors[42], vectors[33] + 1e-3
items = EmbeddingSet.from_arrays(vectors, labels, [f"photo {row}" for row in range(100)])
first = evaluate_embeddings(items, model_hash="m", split="all")
reasons = " ".join(first.reasons)
assert "'photo 42' (person 8) = 'photo 7' (person 1)" in reasons
assert "'photo 33' (person 6) = 'photo 50' (person 10)" in reasons
for seed in range(3):
    shuffled = items.subset(np.random.default_rng(seed).permutation(100))
    again = evaluate_embeddings(shuffled, model_hash="m", split="all")
    same = {"created_at": first.created_at, "data_hash": first.data_hash}
    assert again.model_copy(update=same) == first
