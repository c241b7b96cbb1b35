"""Classes with more pairs than are held at once give the same figures, in memory that does not grow."""

from __future__ import annotations

import tracemalloc
from dataclasses import fields

import numpy as np
import pytest

from api_schemas.operating_point import Score
from api_schemas.report import Report
from decision.scorers import DensityScorer, Scorer
from embeddings.embedding_set import EmbeddingSet
from evaluation.comparison.compare import compare_models
from evaluation.diagnose import diagnose
from evaluation.pairs import pairs, ranks, top_impostors
from evaluation.pairs.pairs import arrange
from evaluation.pairs.ranks import Ranks, compute_ranks
from evaluation.pairs.sweep import sweep_pairs
from tests.evaluation.samples import evaluate

PART = 50


def make_few_coordinates(seed: int, sizes: list[int]) -> EmbeddingSet:
    """Ties and duplicates everywhere; a class of one item; two sessions."""
    draw = np.random.default_rng(seed)
    labels = draw.permutation(np.repeat(np.arange(len(sizes)), sizes))
    vectors = draw.integers(-2, 3, size=(len(labels), 3)) + 0.5
    vectors[:, 0] += labels
    return EmbeddingSet.from_arrays(vectors, labels, metadata={"session": draw.integers(0, 2, len(labels))})


@pytest.fixture
def held_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of at most 50 genuine pairs, ranks of at most 90 partners at a time, the rest on disk."""
    for module in (pairs, ranks):
        monkeypatch.setattr(module, "PART", PART)
    monkeypatch.setattr(ranks, "PARTNERS_HELD", 90)
    monkeypatch.setattr(top_impostors, "IN_MEMORY", 400)


def make_scorer() -> Scorer:
    """A density score, whose order of partners is not that of the similarities."""
    cohort = make_few_coordinates(9, [30]).vectors
    parameters = {"neighbours": [3], "weights": [1.3], "slope": 1.0, "intercept": 0.0}
    return DensityScorer(
        Score(kind="density", form="csls", parameters=parameters, cohort_sha256="0" * 64), cohort
    )


CASES = ["set", "set-excluded", "gallery", "gallery-excluded", "density"]


def make_report(case: str) -> Report:
    items = make_few_coordinates(0, [40, 25, 1, 9, 5])
    return evaluate(
        items,
        gallery=make_few_coordinates(1, [20, 0, 6, 15, 2]) if "gallery" in case else None,
        exclude_same="session" if "excluded" in case else None,
        scorer=make_scorer() if case == "density" else None,
    )


@pytest.mark.parametrize("case", CASES)
def test_figures_do_not_depend_on_how_many_pairs_are_held(case: str, request: pytest.FixtureRequest) -> None:
    whole = make_report(case).model_dump(exclude={"created_at"})
    request.getfixturevalue("held_few")
    few = make_report(case).model_dump(exclude={"created_at"})
    geometry = [section.pop("geometry") for section in (few, whole)]
    class_means = [figures.pop("class_means") for figures in geometry]
    assert few == whole
    assert class_means[0] == class_means[1]
    assert geometry[0] == pytest.approx(geometry[1], abs=1e-12)


def test_worst_pairs_groups_and_flips_do_not_depend_on_it_either(request: pytest.FixtureRequest) -> None:
    a, b = make_few_coordinates(0, [40, 25, 1, 9, 5]), make_few_coordinates(0, [40, 25, 1, 9, 5])
    b = EmbeddingSet.from_arrays(
        b.vectors + 0.3 * np.random.default_rng(4).normal(size=b.vectors.shape), b.labels
    )

    def both() -> list[dict[str, object]]:
        diagnosis = diagnose(a, columns=["session"], model_hash="m", split="t")
        comparison = compare_models(a, b, model_hash_a="a", model_hash_b="b")
        return [document.model_dump(exclude={"created_at"}) for document in (diagnosis, comparison)]

    whole = both()
    request.getfixturevalue("held_few")
    assert both() == whole


@pytest.mark.parametrize("column", [None, "session"])
@pytest.mark.parametrize("gallery", [False, True])
def test_ranks_alone_are_those_of_the_whole_walk(
    gallery: bool, column: str | None, request: pytest.FixtureRequest
) -> None:
    def both() -> list[Ranks]:
        references = make_few_coordinates(1, [20, 4, 6, 0, 2]) if gallery else None
        arranged = arrange(
            make_few_coordinates(0, [40, 25, 1, 9, 5]),
            gallery=references,
            exclude_same=column,
            scorer=make_scorer(),
        )
        walked = sweep_pairs(arranged, per_query=True).ranks
        assert walked is not None
        return [walked, compute_ranks(arranged)]

    whole = both()
    request.getfixturevalue("held_few")
    for again in (whole[1], *both()):
        for field in fields(Ranks):
            np.testing.assert_array_equal(
                getattr(again, field.name), getattr(whole[0], field.name), field.name
            )


@pytest.mark.usefixtures("held_few")
@pytest.mark.parametrize("gallery", [False, True])
def test_parts_are_small_and_hold_every_pair_once(gallery: bool) -> None:
    items = make_few_coordinates(0, [40, 25, 1, 9, 5])
    arranged = arrange(items, gallery=make_few_coordinates(1, [20, 4, 6, 0, 2]) if gallery else None)
    parts = list(arranged.iterate_genuine())
    assert max(map(len, parts)) <= PART
    assert len(parts) > 5
    seen = [(int(i), int(j)) for part in parts for i, j in zip(part.a, part.b, strict=True)]
    assert len(set(seen)) == len(seen) == arranged.n_genuine
    assert all(arranged.a.codes[i] == arranged.b.codes[j] for i, j in seen)
    assert gallery or all(i < j for i, j in seen)


def test_memory_stays_bounded_with_a_few_huge_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two classes of 1,500: 2.2 million genuine pairs would take 36 MB, their partners' ranks 54 MB."""
    for module in (pairs, ranks):
        monkeypatch.setattr(module, "PART", 2**14)
    monkeypatch.setattr(ranks, "PARTNERS_HELD", 2**17)
    monkeypatch.setattr(top_impostors, "IN_MEMORY", 2**20)
    draw = np.random.default_rng(0)
    labels = np.repeat([0, 1], 1500)
    items = EmbeddingSet.from_arrays(draw.normal(size=(3000, 8)) + 3 * np.eye(8)[labels], labels)
    arranged = arrange(items)
    assert arranged.n_genuine > 2_000_000
    sweep_pairs(arrange(items.subset(np.arange(1400, 1600))), per_query=True)  # compile
    tracemalloc.start()
    swept = sweep_pairs(arranged, per_query=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert swept.ranks.r_precision.mean() > 0.5
    fixed = 8 * 3 * swept.bins.count + 5 * 4 * pairs.BLOCK_ROWS * pairs.BLOCK_COLUMNS
    assert peak < fixed + 16 * 2**20, peak
