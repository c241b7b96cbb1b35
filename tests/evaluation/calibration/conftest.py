"""Sets with a dense half of the classes, for the tests of score kinds."""

from __future__ import annotations

import pytest

from embeddings.embedding_set import EmbeddingSet
from tests.evaluation.samples import make_dense_half


@pytest.fixture(scope="session")
def cohort() -> EmbeddingSet:
    return make_dense_half(0, 100, "train")


@pytest.fixture(scope="session")
def fit() -> EmbeddingSet:
    return make_dense_half(1, 50, "fit")


@pytest.fixture(scope="session")
def proof() -> EmbeddingSet:
    return make_dense_half(2, 50, "proof")
