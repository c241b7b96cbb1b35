"""A report and a diagnosis that the tests of the report room share."""

from __future__ import annotations

import numpy as np
import pytest

from api_schemas.diagnosis import Diagnosis
from api_schemas.operating_point import Probability
from api_schemas.report import Report
from embeddings.embedding_set import EmbeddingSet
from evaluation.diagnose import diagnose
from tests.evaluation.report.reports import make_report


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
