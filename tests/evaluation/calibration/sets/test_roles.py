"""Queries and items of a gallery, told apart by a column of roles."""

from __future__ import annotations

import numpy as np

from embeddings.embedding_set import EmbeddingSet
from evaluation.calibration.sets.two_models import split_by_role
from evaluation.evaluate import evaluate_embeddings


def make_items() -> EmbeddingSet:
    """Six classes with an item and three queries each; one query has the vector of its class's item."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, 8))
    labels = np.repeat(np.arange(6), 4)
    vectors = centres[labels] + 0.05 * rng.normal(size=(24, 8))
    vectors[1] = vectors[0] * (1 + 1e-4 * rng.normal(size=8))  # as near as a rounded copy
    roles = np.tile(["item", "query", "query", "query"], 6)
    return EmbeddingSet.from_arrays(vectors, labels, metadata={"role": roles})


def test_without_a_column_all_is_compared_with_all() -> None:
    items = make_items()
    assert split_by_role(items, None) == (items, None)


def test_a_query_with_the_vector_of_an_item_makes_no_unknown_query_of_itself() -> None:
    queries, gallery = split_by_role(make_items(), "role")
    assert gallery is not None
    assert (len(queries), len(gallery)) == (17, 6)
    report = evaluate_embeddings(queries, gallery=gallery, model_hash="", split="test")
    assert report.identification is not None
    assert report.identification.unknown_queries == 17  # each class in turn is left out of the gallery
    assert report.counts.queries_without_partner == 0
