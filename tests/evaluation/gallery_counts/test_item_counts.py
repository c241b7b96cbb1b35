"""Counts brought up to date are those of a fresh computation, to the last pair; OPIS follows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from api_schemas.operating_point import Score
from decision.scorer_registry import open_scorer
from decision.scorers import CosineScorer, Scorer
from embeddings.embedding_set import EmbeddingSet
from embeddings.hashes import hash_cohort
from evaluation.evaluate import evaluate_embeddings
from evaluation.gallery_counts.counts_file import AboutCounts, open_counts, save_counts
from evaluation.gallery_counts.counts_report import (
    build_counted_report,
    build_full_report,
    count_by_class,
    measure_counted_consistency,
)
from evaluation.gallery_counts.item_counts import count_pairs, update_counts
from evaluation.metrics.opis import OpisSettings

THRESHOLDS = np.linspace(0.1, 0.9, 9, dtype=np.float32)


def make_items(seed: int, classes: int = 12, each: int = 9, prefix: str = "") -> EmbeddingSet:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    spread = rng.uniform(0.3, 1.2, size=(classes, 1))
    vectors = rng.normal(size=(classes, 16))[labels] + spread[labels] * rng.normal(size=(len(labels), 16))
    ids = [f"{prefix}{k}" for k in range(len(labels))]
    return EmbeddingSet.from_arrays(vectors, labels, ids)


def change(items: EmbeddingSet, seed: int, n: int) -> EmbeddingSet:
    """n random writes and deletions, one after the other: new items, new vectors, new labels, gone ones."""
    rng = np.random.default_rng(seed)
    stored = {
        id_: (label, vector)
        for id_, label, vector in zip(items.ids, items.labels, items.vectors, strict=True)
    }
    for number in range(n):
        known = list(stored)
        chosen = known[rng.integers(len(known))]
        label, vector = stored[chosen]
        match rng.integers(4):
            case 0:
                stored[f"new {seed} {number}"] = label, _turn(vector, rng)
            case 1:
                stored[chosen] = label, _turn(vector, rng)
            case 2:
                stored[chosen] = str(rng.integers(12)), vector
            case 3:
                del stored[chosen]
    order = sorted(stored)
    return EmbeddingSet(
        np.stack([stored[id_][1] for id_ in order]),
        np.array([stored[id_][0] for id_ in order]),
        np.array(order),
    )


def _turn(vector: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    turned = vector + 0.2 * rng.normal(size=len(vector))
    return (turned / np.linalg.norm(turned)).astype(np.float32)


def make_scorer(kind: str) -> Scorer:
    if kind == "cosine":
        return CosineScorer()
    cohort = make_items(99, prefix="c").vectors
    score = Score(
        kind="density",
        form="csls",
        parameters={"neighbours": [5], "weights": [1.0], "slope": 1.0, "intercept": 0.0},
        cohort_sha256=hash_cohort(cohort),
    )
    return open_scorer(score, cohort)


def test_counts_are_those_of_a_plain_loop() -> None:
    items = make_items(0)
    counts = count_pairs(items, THRESHOLDS, CosineScorer())
    similarities = (items.vectors.astype(np.float64) @ items.vectors.T.astype(np.float64)).astype(np.float32)
    for row in (0, 5, len(items) - 1):
        others = np.arange(len(items)) != row
        same = items.codes == items.codes[row]
        for column, threshold in enumerate(THRESHOLDS):
            accepted = (similarities[row] >= threshold) & others
            reached = counts.levels[row, :, column + 1 :].sum(axis=1).tolist()
            assert reached == [(accepted & ~same).sum(), (accepted & same).sum()]


@pytest.mark.parametrize("kind", ["cosine", "density"])
def test_updates_equal_a_fresh_count(kind: str) -> None:
    """A few hundred upserts and deletes in several rounds, among them changed labels and vectors."""
    scorer, items = make_scorer(kind), make_items(1)
    counts = count_pairs(items, THRESHOLDS, scorer)
    for round_ in range(4):
        items = change(items, round_, 60)
        counts, changes = update_counts(counts, items, scorer)
        assert 0 < changes.added < len(items)
        assert changes.kept + changes.added == len(items)
    fresh = count_pairs(items, THRESHOLDS, scorer)
    assert np.array_equal(counts.levels, fresh.levels)
    assert count_by_class(counts).genuine.sum() > 0
    of_updates, of_all = (measure_counted_consistency(one, THRESHOLDS, True) for one in (counts, fresh))
    assert of_updates == of_all


def test_no_change_counts_nothing() -> None:
    items = make_items(2)
    counts = count_pairs(items, THRESHOLDS, CosineScorer())
    again, changes = update_counts(counts, items.subset(np.arange(len(items))[::-1]), CosineScorer())
    assert (changes.added, changes.removed) == (0, 0)
    assert np.array_equal(again.levels, counts.levels[::-1])


def test_gallery_that_is_emptied_and_filled() -> None:
    items = make_items(3)
    counts = count_pairs(items, THRESHOLDS, CosineScorer())
    empty, _ = update_counts(counts, items.subset(np.zeros(0, dtype=np.int64)), CosineScorer())
    assert empty.levels.shape == (0, 2, len(THRESHOLDS) + 1)
    filled, _ = update_counts(empty, items, CosineScorer())
    assert np.array_equal(filled.levels, counts.levels)


@pytest.mark.parametrize("kind", ["cosine", "density"])
def test_figures_are_those_of_the_whole_evaluation(kind: str) -> None:
    """Over thresholds of other data: OPIS, classes and pairs as a walk over all pairs measures them."""
    scorer, items = make_scorer(kind), make_items(4)
    other = evaluate_embeddings(make_items(5), scorer=scorer, model_hash="m", split="t").consistency
    grid = np.array(other.thresholds, dtype=np.float32)
    expected = evaluate_embeddings(
        items,
        scorer=scorer,
        model_hash="m",
        split="gallery",
        settings=OpisSettings(thresholds=tuple(other.thresholds)),
    )
    counts = count_pairs(items, grid, scorer)
    section = expected.consistency
    assert section.thresholds == other.thresholds
    report = build_counted_report(counts, grid, scorer, "m", section.noise_floor)
    full = build_full_report(counts, grid, expected)
    for found in (report.consistency, full.consistency):
        assert found.opis == pytest.approx(section.opis, abs=1e-12)
        assert found.opis_debiased == pytest.approx(section.opis_debiased, abs=1e-12)
        assert found.epsilon_opis == pytest.approx(section.epsilon_opis, abs=1e-12)
        assert found.mean_utility == pytest.approx(section.mean_utility, abs=1e-12)
        assert found.per_class == section.per_class
        assert found.band == section.band
        assert found.calibration_range == section.calibration_range
    assert report.counts == expected.counts
    assert report.data_hash == expected.data_hash
    assert full.retrieval == expected.retrieval
    assert full.consistency.opis_logfar == section.opis_logfar
    assert full.consistency.opis_ci == section.opis_ci
    assert report.verification.curve is not None
    assert report.verification.curve.threshold == sorted(other.thresholds, reverse=True)


def test_far_of_the_range_is_what_the_data_has_there() -> None:
    items = make_items(4)
    thresholds = (0.9, 0.5, -0.2)
    report = evaluate_embeddings(
        items, model_hash="m", split="t", settings=OpisSettings(grid=3, thresholds=thresholds)
    )
    reach = report.consistency.calibration_range
    assert reach is not None
    similarities = (items.vectors.astype(np.float64) @ items.vectors.T.astype(np.float64)).astype(np.float32)
    impostor = similarities[np.triu(items.codes[:, None] != items.codes[None, :])]
    assert reach.far == ((impostor >= np.float32(0.9)).mean(), (impostor >= np.float32(-0.2)).mean())


def test_counts_are_saved_with_a_checksum(tmp_path: Path) -> None:
    items = make_items(6)
    counts = count_pairs(items, THRESHOLDS, CosineScorer())
    about = AboutCounts(
        model_hash="m",
        score=Score(),
        sequence=7,
        grid=THRESHOLDS.tolist(),
        grid_from="holdout",
        noise_floor=None,
        sha256="",
    )
    assert open_counts(tmp_path) is None
    save_counts(tmp_path, counts, about)
    saved = open_counts(tmp_path)
    assert saved is not None
    assert saved.about.sequence == 7
    assert np.array_equal(saved.counts.levels, counts.levels)
    assert np.array_equal(saved.counts.items.vectors, items.vectors)
    assert all(file.stat().st_mode & 0o077 == 0 for file in tmp_path.iterdir())
    file = tmp_path / "gallery-counts.npz"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    assert open_counts(tmp_path) is None
