"""Which pairs each rule leaves out, and that the report says which rule it was."""

import itertools

import numpy as np

from embeddings.embedding_set import EmbeddingSet
from evaluation.evaluate import evaluate_embeddings

draw = np.random.default_rng(0)
people, cameras = np.repeat(np.arange(10), 6), np.tile([1, 1, 2, 2, 3, 3], 10)
items = EmbeddingSet.from_arrays(draw.normal(size=(60, 16)), people, metadata={"camera": cameras})
pairs = list(itertools.combinations(range(60), 2))
for form, rule, said in (
    ("camera", lambda a, b: cameras[a] == cameras[b], "of different labels as well"),
    (
        "market-1501:camera",
        lambda a, b: people[a] == people[b] and cameras[a] == cameras[b],
        "Market-1501's rule",
    ),
):
    report = evaluate_embeddings(items, exclude_same=form, model_hash="m", split="all")
    left = [people[a] == people[b] for a, b in pairs if not rule(a, b)]
    assert report.counts.genuine_pairs == sum(left)
    assert report.counts.impostor_pairs == len(left) - sum(left)
    assert any(said in reason for reason in report.reasons)
