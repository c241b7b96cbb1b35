"""A model is compatible with itself, copies and ties included."""

import numpy as np

from embeddings.embedding_set import EmbeddingSet
from evaluation.comparison.compare import compare_models

draw = np.random.default_rng(0)
labels = np.repeat(np.arange(20), 5)
vectors = draw.normal(size=(20, 16))[labels] + 0.8 * draw.normal(size=(100, 16))
vectors[::10] = vectors[5]
items = EmbeddingSet.from_arrays(vectors, labels, [f"photo {row}" for row in range(100)])
comparison = compare_models(items, items, model_hash_a="a", model_hash_b="a")
assert comparison.compatibility is not None
assert comparison.compatibility.compatible
assert all(row.difference in (None, 0) for row in comparison.differences)
