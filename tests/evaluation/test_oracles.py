"""The same numbers as scikit-learn, score-analysis and pytorch-metric-learning."""

from __future__ import annotations

import numpy as np
import pytest
import score_analysis
import torch
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from sklearn.metrics import roc_auc_score, roc_curve

from api_schemas.report import Report
from embeddings.embedding_set import EmbeddingSet
from tests.evaluation.samples import evaluate


@pytest.fixture(scope="module")
def items() -> EmbeddingSet:
    draw = np.random.default_rng(4)
    labels = np.concatenate([draw.integers(0, 40, 500), [1000, 1001]])
    centres = draw.normal(size=(1002, 12))
    return EmbeddingSet.from_arrays(centres[labels] + 0.9 * draw.normal(size=(502, 12)), labels)


@pytest.fixture(scope="module")
def report(items: EmbeddingSet) -> Report:
    return evaluate(items)


@pytest.fixture(scope="module")
def pairs(items: EmbeddingSet) -> tuple[np.ndarray, np.ndarray]:
    """Score and truth of every pair."""
    vectors = items.vectors.astype(np.float64)
    i, j = np.triu_indices(len(items), 1)
    scores = np.clip((vectors @ vectors.T)[i, j], -1, 1).astype(np.float32)
    return scores, items.labels[i] == items.labels[j]


def test_scikit_learn_agrees_on_auc_eer_and_tar(report: Report, pairs: tuple[np.ndarray, np.ndarray]) -> None:
    scores, same = pairs
    assert report.verification.auc == pytest.approx(roc_auc_score(same, scores), abs=1e-9)
    far, tar, _ = roc_curve(same, scores, drop_intermediate=False)
    frr = 1 - tar
    k = int(np.flatnonzero(far <= frr)[-1])
    t = (frr[k] - far[k]) / ((frr[k] - far[k]) + (far[k + 1] - frr[k + 1]))
    assert report.verification.eer == pytest.approx(far[k] + t * (far[k + 1] - far[k]), abs=1e-9)
    for key, value in report.verification.tar_at_far.items():
        assert value == pytest.approx(tar[far <= float(key)].max(), abs=1e-9)


def test_score_analysis_agrees(report: Report, pairs: tuple[np.ndarray, np.ndarray]) -> None:
    scores, same = pairs
    oracle = score_analysis.Scores(pos=scores[same], neg=scores[~same], equal_class="pos")
    curve = report.verification.curve
    np.testing.assert_allclose(oracle.far(np.array(curve.threshold)), curve.far, atol=1e-9)
    np.testing.assert_allclose(oracle.frr(np.array(curve.threshold)), curve.frr, atol=1e-9)
    for key, value in report.verification.tar_at_far.items():
        threshold = oracle.threshold_at_far(float(key))
        assert (
            abs(oracle.far(threshold) - float(key)) <= 1 / (~same).sum()
        )  # a pair more or less, by rounding
        assert value == pytest.approx(oracle.tar(threshold), abs=1.5 / same.sum())


def test_pytorch_metric_learning_agrees_on_ranks(report: Report, items: EmbeddingSet) -> None:
    calculator = AccuracyCalculator(
        include=("precision_at_1", "r_precision", "mean_average_precision_at_r"),
        k="max_bin_count",
        device=torch.device("cpu"),
    )
    theirs = calculator.get_accuracy(torch.from_numpy(items.vectors), torch.from_numpy(items.codes))
    assert report.retrieval.recall_at_1 == pytest.approx(theirs["precision_at_1"], abs=1e-6)
    assert report.retrieval.r_precision == pytest.approx(theirs["r_precision"], abs=1e-6)
    assert report.retrieval.map_at_r == pytest.approx(theirs["mean_average_precision_at_r"], abs=1e-6)
