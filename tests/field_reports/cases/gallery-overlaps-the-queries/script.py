"""Random vectors are not recognised, though the gallery holds every query."""

import numpy as np

from embeddings.embedding_set import EmbeddingSet
from evaluation.evaluate import evaluate_embeddings

draw = np.random.default_rng(0)
labels = np.repeat(np.arange(50), 4)
items = EmbeddingSet.from_arrays(draw.normal(size=(200, 64)), labels)
for rows in (np.arange(200), np.arange(100), draw.permutation(200)):
    report = evaluate_embeddings(items.subset(rows), gallery=items, model_hash="m", split="all")
    assert report.retrieval.recall_at_1 is not None
    assert report.retrieval.recall_at_1 < 0.1
    assert any(
        f"{len(rows)} of {len(rows)} queries are in the gallery" in reason for reason in report.reasons
    )
