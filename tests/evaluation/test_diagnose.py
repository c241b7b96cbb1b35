"""Groups and hardest pairs against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from api_schemas.diagnosis import Diagnosis
from common.errors import InputError
from embeddings.embedding_set import EmbeddingSet
from evaluation.diagnose import diagnose
from tests.evaluation.samples import evaluate, make_cameras


@pytest.fixture(scope="module")
def items() -> EmbeddingSet:
    return make_cameras()


@pytest.fixture(scope="module")
def diagnosis(items: EmbeddingSet) -> Diagnosis:
    return diagnose(items, columns=["camera"], model_hash="m", split="test", worst=7)


def compute_scores(items: EmbeddingSet) -> np.ndarray:
    vectors = items.vectors.astype(np.float64)
    return np.clip(vectors @ vectors.T, -1, 1).astype(np.float32)


def test_groups_hold_the_pairs_with_both_ends_in_them(items: EmbeddingSet, diagnosis: Diagnosis) -> None:
    scores, same = compute_scores(items), items.labels[:, None] == items.labels[None, :]
    upper = np.triu(np.ones_like(same), 1)
    for value in ("left", "right"):
        inside = items.metadata["camera"] == value
        both = upper & inside[:, None] & inside[None, :]
        group = next(g for g in diagnosis.groups if (g.column, g.value) == ("camera", value))
        assert (group.genuine_pairs, group.impostor_pairs) == ((both & same).sum(), (both & ~same).sum())
        for key, threshold in diagnosis.thresholds.far.items():
            assert group.far[key] == pytest.approx(np.mean(scores[both & ~same] >= np.float32(threshold)))
            assert group.frr[key] == pytest.approx(np.mean(scores[both & same] < np.float32(threshold)))


def test_pooled_thresholds_keep_their_shares(items: EmbeddingSet, diagnosis: Diagnosis) -> None:
    scores = compute_scores(items)
    impostor = scores[np.triu(items.labels[:, None] != items.labels[None, :], 1)]
    for key, threshold in diagnosis.thresholds.far.items():
        assert np.mean(impostor >= np.float32(threshold)) <= float(key)
        assert np.mean(impostor >= np.nextafter(np.float32(threshold), np.float32(-2))) > float(key)


def test_classes_add_up_to_the_report(items: EmbeddingSet, diagnosis: Diagnosis) -> None:
    report = evaluate(items)
    classes = [g for g in diagnosis.groups if g.column == "label"]
    assert len(classes) == 11
    known = [g for g in classes if g.recall_at_1 is not None]
    weights = [g.n_items for g in known]
    for name in ("recall_at_1", "r_precision", "map_at_r"):
        mean = np.average([getattr(g, name) for g in known], weights=weights)
        assert mean == pytest.approx(getattr(report.retrieval, name))
    for key, fnir in report.identification.fnir_at_fpir.items():
        assert np.average([g.fnir[key] for g in known], weights=weights) == pytest.approx(fnir)
        fpir = np.average([g.fpir[key] for g in classes], weights=[g.n_items for g in classes])
        assert fpir <= float(key)


def test_a_group_without_impostors_is_named(diagnosis: Diagnosis) -> None:
    group = next(g for g in diagnosis.groups if g.value == "alone")
    assert group.impostor_pairs == 0
    assert set(group.far.values()) == {None}
    assert any("camera = alone has no impostor pair" in reason for reason in diagnosis.reasons)


def test_hardest_pairs(items: EmbeddingSet, diagnosis: Diagnosis) -> None:
    scores, same = compute_scores(items), items.labels[:, None] == items.labels[None, :]
    upper = np.triu(np.ones_like(same), 1)
    expected = np.sort(scores[upper & ~same])[::-1][:7]
    np.testing.assert_allclose([pair.score for pair in diagnosis.hardest_impostor], expected)
    expected = np.sort(scores[upper & same])[:7]
    np.testing.assert_allclose([pair.score for pair in diagnosis.hardest_genuine], expected)
    for pair in [*diagnosis.hardest_impostor, *diagnosis.hardest_genuine]:
        i, j = int(np.flatnonzero(items.ids == pair.a)[0]), int(np.flatnonzero(items.ids == pair.b)[0])
        assert scores[i, j] == np.float32(pair.score)
        assert (pair.label_a, pair.label_b) == (items.labels[i], items.labels[j])
    assert all(pair.label_a != pair.label_b for pair in diagnosis.hardest_impostor)


def test_unknown_and_overfull_columns_are_refused(items: EmbeddingSet) -> None:
    with pytest.raises(InputError, match=r"no column 'writer'.*camera"):
        diagnose(items, columns=["writer"], model_hash="m", split="test")
    draw = np.random.default_rng(0)
    many = EmbeddingSet.from_arrays(
        draw.normal(size=(300, 4)), draw.integers(0, 9, 300), metadata={"n": np.arange(300)}
    )
    with pytest.raises(InputError, match="300 values"):
        diagnose(many, columns=["n"], model_hash="m", split="test")


def test_against_a_gallery_a_group_is_of_queries(items: EmbeddingSet) -> None:
    queries, gallery = items.subset(np.arange(0, 61, 2)), items.subset(np.arange(1, 61, 2))
    diagnosis = diagnose(
        queries, gallery=gallery, training=gallery, columns=["camera"], model_hash="m", split="t"
    )
    groups = [g for g in diagnosis.groups if g.column == "camera"]
    report = evaluate(queries, gallery=gallery)
    assert sum(g.genuine_pairs for g in groups) == report.counts.genuine_pairs
    assert sum(g.impostor_pairs for g in groups) == report.counts.impostor_pairs
    assert diagnosis.utilization is not None
    assert Diagnosis.model_validate_json(diagnosis.to_json()) == diagnosis
