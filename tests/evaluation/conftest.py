"""Sets with a dense half of the classes, a report and a diagnosis that tests share."""

from __future__ import annotations

import numpy as np
import pytest

from api_schemas.diagnosis import Diagnosis
from api_schemas.operating_point import Probability
from api_schemas.report import Report
from embeddings.embedding_set import EmbeddingSet
from evaluation.diagnose import diagnose
from tests.evaluation.report.reports import make_report
from tests.evaluation.samples import make_dense_half


@pytest.fixture(scope="session")
def report() -> Report:
    return make_report()


@pytest.fixture(scope="session")
def diagnosis() -> Diagnosis:
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(14), 8)
    vectors = draw.normal(size=(14, 10))[labels] + 0.8 * draw.normal(size=(112, 10))
    items = EmbeddingSet.from_arrays(
        vectors, labels, [f"<i{k}>" for k in range(112)], {"camera": np.tile(["left", "right"], 56)}
    )
    probability = Probability(kind="platt", parameters={"slope": 9.0, "intercept": -4.0}, prior=0.5)
    return diagnose(items, columns=["camera"], probability=probability, model_hash="m", split="t")


@pytest.fixture(scope="session")
def cohort() -> EmbeddingSet:
    return make_dense_half(0, 100, "train")


@pytest.fixture(scope="session")
def fit() -> EmbeddingSet:
    return make_dense_half(1, 50, "fit")


@pytest.fixture(scope="session")
def proof() -> EmbeddingSet:
    return make_dense_half(2, 50, "proof")
