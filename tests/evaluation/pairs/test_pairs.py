"""Every pair is met once, and counted for the right classes."""

from __future__ import annotations

import numpy as np
import pytest

from common.errors import InputError
from embeddings.embedding_set import EmbeddingSet
from embeddings.similarity import compute_pair_similarities
from evaluation.pairs import pairs as module
from evaluation.pairs.pairs import Pairs, arrange
from evaluation.pairs.threshold_levels import count_accepted_per_class
from tests.evaluation.samples import make_ties


def list_naive_pairs(
    items: EmbeddingSet, gallery: EmbeddingSet | None, exclude: str | None
) -> list[tuple[str, str, np.float32]]:
    """(label, label, score) of every pair, by two loops; a query is not compared with its own vector."""
    pairs = []
    references = items if gallery is None else gallery
    for i in range(len(items)):
        for j in range(i + 1 if gallery is None else 0, len(references)):
            if exclude is not None and items.metadata[exclude][i] == references.metadata[exclude][j]:
                continue
            score = compute_pair_similarities(items.vectors[i : i + 1], references.vectors[j : j + 1])[0]
            if gallery is not None and score > 1 - 1e-6:
                continue
            pairs.append((str(items.labels[i]), str(references.labels[j]), score))
    return pairs


CASES = [(None, None), (None, "session"), (1, None), (1, "session")]


def build_case(case: tuple[int | None, str | None]) -> tuple[Pairs, list[tuple[str, str, np.float32]]]:
    gallery = None if case[0] is None else make_ties(case[0], 40, 9)
    items = make_ties(0, 60, 7)
    return arrange(items, gallery=gallery, exclude_same=case[1]), list_naive_pairs(items, gallery, case[1])


@pytest.fixture(params=CASES, ids=["set", "set-excluded", "gallery", "gallery-excluded"])
def both(request: pytest.FixtureRequest) -> tuple[Pairs, list[tuple[str, str, np.float32]]]:
    return build_case(request.param)


@pytest.fixture(params=[False, True], ids=["float64-blocks", "small-float32-blocks"])
def small_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param:
        monkeypatch.setattr(module, "BLOCK_ROWS", 7)
        monkeypatch.setattr(module, "BLOCK_COLUMNS", 11)
    return bool(request.param)


def test_totals_are_those_of_two_loops(both: tuple[Pairs, list[tuple[str, str, np.float32]]]) -> None:
    pairs, expected = both
    assert pairs.n_genuine == sum(a == b for a, b, _ in expected)
    assert pairs.n_impostor == sum(a != b for a, b, _ in expected)
    for code, label in enumerate(pairs.classes):
        assert pairs.genuine_per_class[code] == sum(a == b == label for a, b, _ in expected)
        assert pairs.impostor_per_class[code] == sum((a == label) != (b == label) for a, b, _ in expected)


def test_blocks_hold_each_impostor_pair_once(
    both: tuple[Pairs, list[tuple[str, str, np.float32]]], small_blocks: bool
) -> None:
    pairs, expected = both
    scores = np.concatenate([block.scores[pairs.mask_impostors(block)] for block in pairs.iterate_blocks()])
    np.testing.assert_array_equal(np.sort(scores), np.sort([s for a, b, s in expected if a != b]))
    genuine = pairs.collect_genuine()
    np.testing.assert_array_equal(np.sort(genuine.scores), np.sort([s for a, b, s in expected if a == b]))


def test_accepted_per_class_counts_ties_as_accepted(
    both: tuple[Pairs, list[tuple[str, str, np.float32]]], small_blocks: bool
) -> None:
    pairs, expected = both
    scores = np.array([s for _, _, s in expected])
    thresholds = np.concatenate([np.random.default_rng(1).choice(scores, 9), [2.0, -2.0]]).astype(np.float32)
    genuine, impostor = count_accepted_per_class(pairs, thresholds)
    for k, t in enumerate(thresholds):
        for code, label in enumerate(pairs.classes):
            assert genuine[code, k] == sum(a == b == label and s >= t for a, b, s in expected)
            assert impostor[code, k] == sum(((a == label) != (b == label)) and s >= t for a, b, s in expected)


def test_impostor_totals_among_chosen_items() -> None:
    items = make_ties(3, 60, 7)
    pairs = arrange(items, exclude_same="session")
    chosen = np.random.default_rng(0).random(len(items)) < 0.5
    totals = pairs.count_impostors(chosen, chosen)
    rows = pairs.a.rows[chosen]
    expected = list_naive_pairs(items.subset(rows), None, "session")
    for code, label in enumerate(pairs.classes):
        assert totals[code] == sum((a == label) != (b == label) for a, b, _ in expected)


def test_an_unknown_column_and_another_dimension_are_named() -> None:
    with pytest.raises(InputError, match=r"no column 'camera'.*session"):
        arrange(make_ties(0, 60, 7), exclude_same="camera")
    with pytest.raises(InputError, match="4 numbers"):
        arrange(make_ties(0, 60, 7), gallery=EmbeddingSet.from_arrays(np.eye(4), [1, 2, 3, 4]))
