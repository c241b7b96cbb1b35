"""Thresholds for queries of one model against the gallery of another, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from api_schemas.operating_point import GallerySize, Target
from common.errors import InputError
from embeddings.embedding_set import EmbeddingSet
from evaluation.calibration.calibrate import Calibrator
from evaluation.calibration.sets.sources import CalibrationSources
from evaluation.calibration.sets.two_models import exclude_own_model, join_models

CLASSES, EACH = 60, 5


def make_models() -> tuple[EmbeddingSet, EmbeddingSet]:
    """The same items by a model of the queries and by a noisier one that is shifted."""
    random = np.random.default_rng(3)
    labels = np.repeat([f"c{k:02d}" for k in range(CLASSES)], EACH)
    base = np.repeat(random.normal(size=(CLASSES, 12)), EACH, axis=0)
    base += 0.6 * random.normal(size=base.shape)
    ids = [f"i{k}" for k in range(len(labels))]
    new = EmbeddingSet.from_arrays(base, labels, ids)
    old = EmbeddingSet.from_arrays(base + 0.5 * random.normal(size=base.shape) + 0.3, labels, ids)
    return new, old


def prepare() -> tuple[Calibrator, np.ndarray, np.ndarray]:
    """The calibrator, the cosines of each query with each item of the gallery, and which are of one class."""
    new, old = make_models()
    size = GallerySize(items=len(old), classes=CLASSES)
    joined, excluded = join_models(new, old), exclude_own_model(None)
    sources = CalibrationSources(joined, gallery=size, exclude_same=excluded)
    calibrator = Calibrator.prepare(sources, "cosine", "nearest", "hash")
    scores = np.clip(new.vectors.astype(np.float64) @ old.vectors.astype(np.float64).T, -1, 1)
    np.fill_diagonal(scores, -np.inf)
    return calibrator, scores.astype(np.float32), new.labels[:, None] == new.labels[None, :]


def test_pairs_are_those_of_a_query_with_another_item_of_the_gallery() -> None:
    calibrator, scores, same = prepare()
    pairs = calibrator.data.pairs
    n = CLASSES * EACH
    assert pairs.n_genuine == n * (EACH - 1)
    assert pairs.n_impostor == n * (n - EACH)
    point = calibrator.calibrate(calibrator.complete(Target(kind="far", value=0.01)), "estimated").point
    accepted = (scores[~same] >= np.float32(point.threshold)).mean()
    assert accepted == pytest.approx(0.01, abs=0.0005)
    genuine = scores[same & np.isfinite(scores)]
    assert point.fit.frr == pytest.approx((genuine < np.float32(point.threshold)).mean(), abs=1e-9)


def test_of_a_search_the_new_vectors_are_queries_and_the_old_ones_the_gallery() -> None:
    calibrator, scores, same = prepare()
    trials = calibrator.search.pool
    assert len(trials) == trials.gallery_items == CLASSES * EACH
    best_other = np.where(same, -np.inf, scores).max(axis=1)
    best_own = np.where(same, scores, -np.inf).max(axis=1)
    np.testing.assert_allclose(np.sort(trials.best_other), np.sort(best_other), atol=1e-6)
    np.testing.assert_allclose(np.sort(trials.own), np.sort(best_own), atol=1e-6)
    point = calibrator.calibrate(calibrator.complete(Target(kind="fpir", value=0.1)), "estimated").point
    threshold = np.float32(point.threshold)
    fnir = 1 - ((best_own >= threshold) & (best_own > best_other)).mean()
    assert point.fit.fnir == pytest.approx(fnir, abs=1e-9)
    assert (best_other >= threshold).mean() == pytest.approx(0.1, abs=0.03)


def test_models_of_other_lengths_are_refused() -> None:
    new, old = make_models()
    short = EmbeddingSet.from_arrays(old.vectors[:, :5], old.labels, old.ids)
    with pytest.raises(InputError, match=r"makes vectors of 12 numbers, the gallery's have 5: train"):
        join_models(new, short)
