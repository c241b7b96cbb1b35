"""Which pairs are left out, against two loops; and that no figure depends on the order of the rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from api_schemas.report import Report
from common.errors import InputError
from embeddings.embedding_set import EmbeddingSet
from evaluation.comparison.compare import compare_models
from evaluation.pairs.exclusions import describe_exclusions
from evaluation.pairs.pairs import Pairs, arrange
from tests.evaluation.samples import evaluate, make_clusters, make_sessions, make_ties

TIMES = np.array("2024-01-31T12:00", dtype="datetime64[s]") + np.array(
    [0, 59, 118, 400, 401, 0, 1, 30, 900, 62]
)


def make_shots() -> EmbeddingSet:
    """Ten items of two classes with a camera, a session, and the time at which each was taken."""
    draw = np.random.default_rng(0)
    return EmbeddingSet.from_arrays(
        draw.normal(size=(10, 6)),
        list("aaaaabbbbb"),
        metadata={
            "camera": np.array(["left", "left", "right", "right", "", "left", "right", "right", "", "left"]),
            "session": np.array([1, 2, 1, 2, 3, 3, 1, 1, 2, 2]),
            "taken": TIMES,
            "written": np.char.add(TIMES.astype(str), "Z"),
        },
    )


def list_pairs(pairs: Pairs, items: EmbeddingSet) -> set[frozenset[int]]:
    """The pairs of rows that are walked, genuine and impostor."""
    genuine = pairs.collect_genuine()
    found = {frozenset(pair) for pair in zip(pairs.a.rows[genuine.a], pairs.b.rows[genuine.b], strict=True)}
    for block in pairs.iterate_blocks():
        r, c = np.nonzero(pairs.mask_impostors(block))
        rows, columns = pairs.a.rows[r + block.rows.start], pairs.b.rows[c + block.columns.start]
        found |= {frozenset(pair) for pair in zip(rows, columns, strict=True)}
    assert len(found) == pairs.n_genuine + pairs.n_impostor
    assert pairs.n_genuine == len(genuine)
    return found


def is_joined_in_time(items: EmbeddingSet, i: int, j: int) -> bool:
    """Of one label, and no gap of more than a minute between the two among the label's items."""
    if items.labels[i] != items.labels[j]:
        return False
    low, high = sorted([TIMES[i], TIMES[j]])
    between = np.sort(TIMES[(items.labels == items.labels[i]) & (low <= TIMES) & (high >= TIMES)])
    return bool((np.diff(between) <= np.timedelta64(60, "s")).all())


def get_recall(report: Report) -> float:
    assert report.retrieval.recall_at_1 is not None
    return report.retrieval.recall_at_1


Rule = Callable[[EmbeddingSet, int, int], bool]


def shares(column: str) -> Rule:
    return lambda items, i, j: bool(
        items.metadata[column][i] == items.metadata[column][j] and items.metadata[column][i] != ""
    )


RULES: list[tuple[str | list[str], Rule]] = [
    ("camera", shares("camera")),
    (
        "market-1501:camera",
        lambda items, i, j: shares("camera")(items, i, j) and items.labels[i] == items.labels[j],
    ),
    (
        ["camera", "session"],
        lambda items, i, j: shares("camera")(items, i, j) or shares("session")(items, i, j),
    ),
    ("near-time:taken", is_joined_in_time),
    ("near-time:written", is_joined_in_time),
    (
        ["near-time:taken", "market-1501:session", "camera"],
        lambda items, i, j: (
            is_joined_in_time(items, i, j)
            or (shares("session")(items, i, j) and items.labels[i] == items.labels[j])
            or shares("camera")(items, i, j)
        ),
    ),
]


@pytest.mark.parametrize(("forms", "rule"), RULES, ids=[str(forms) for forms, _ in RULES])
def test_pairs_are_left_out_by_what_they_share(forms: str | list[str], rule: Rule) -> None:
    items = make_shots()
    expected = {frozenset((i, j)) for i in range(10) for j in range(i) if not rule(items, i, j)}
    assert 0 < len(expected) < 45
    assert list_pairs(arrange(items, exclude_same=forms), items) == expected


def test_the_rule_of_market_1501_keeps_other_people_of_a_camera() -> None:
    items = make_shots()
    of_camera, of_person = (arrange(items, exclude_same=form) for form in ("camera", "market-1501:camera"))
    assert of_camera.n_genuine == of_person.n_genuine
    assert of_camera.n_impostor < of_person.n_impostor == arrange(items).n_impostor
    assert (
        describe_exclusions("camera")
        == "Left out: every pair with one 'camera', of different labels as well."
    )
    assert describe_exclusions(["market-1501:camera"]) == (
        "Left out: pairs of one label and one 'camera' (Market-1501's rule)."
    )


def test_what_cannot_be_excluded_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"no column 'kamera'.*market-1501:COLUMN, near-copy"):
        arrange(make_shots(), exclude_same="market-1501:kamera")
    with pytest.raises(InputError, match="'camera' holds something other than times"):
        arrange(make_shots(), exclude_same="near-time:camera")


def test_no_figure_depends_on_the_order_of_the_rows() -> None:
    """Copies under two labels and ties everywhere, as given and shuffled."""
    items = make_ties(5, 90, 6)
    copies = EmbeddingSet.from_arrays(
        np.concatenate([items.vectors, items.vectors[:20]]),
        np.concatenate([items.labels, np.roll(items.labels[:20], 1)]),
        [f"item {k}" for k in range(110)],
        metadata={"session": np.concatenate([items.metadata["session"], items.metadata["session"][:20]])},
    )
    for exclude in (None, "session", "near-copy"):
        first = evaluate(copies, exclude_same=exclude)
        for seed in range(3):
            shuffled = copies.subset(np.random.default_rng(seed).permutation(len(copies)))
            again = evaluate(shuffled, exclude_same=exclude)
            same = {"created_at": first.created_at, "data_hash": first.data_hash}
            assert again.model_copy(update=same) == first


def test_a_comparison_does_not_depend_on_the_order_of_the_rows() -> None:
    a, b = make_clusters(1), make_clusters(1)
    b = EmbeddingSet.from_arrays(np.round(b.vectors, 1), b.labels, b.ids)
    order = np.random.default_rng(0).permutation(len(a))
    first, again = (
        compare_models(a.subset(rows), b, model_hash_a="a", model_hash_b="b")
        for rows in (np.arange(len(a)), order)
    )
    assert again.model_copy(update={"created_at": first.created_at}) == first


def test_a_query_that_is_in_the_gallery_does_not_find_itself() -> None:
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), 5)
    items = EmbeddingSet.from_arrays(draw.normal(size=(200, 64)), labels)
    alone = evaluate(items)
    report = evaluate(items, gallery=items.subset(draw.permutation(200)))
    assert get_recall(report) == get_recall(alone)
    assert get_recall(report) < 0.1
    assert report.counts.genuine_pairs == 2 * alone.counts.genuine_pairs
    assert any("200 of 200 queries are in the gallery" in reason for reason in report.reasons)
    coarse = EmbeddingSet.from_arrays(items.vectors.astype(np.float16), labels)
    assert get_recall(evaluate(items, gallery=coarse)) < 0.1


def test_a_query_is_known_in_the_gallery_by_its_id_as_well() -> None:
    draw = np.random.default_rng(0)
    labels, names = np.repeat(np.arange(20), 5), np.array([f"photo {k}" for k in range(100)])
    vectors = draw.normal(size=(100, 32))
    items = EmbeddingSet.from_arrays(vectors, labels, names)
    again = EmbeddingSet.from_arrays(vectors + 0.05 * draw.normal(size=vectors.shape), labels, names)
    assert get_recall(evaluate(items, gallery=again)) < 0.2
    unnamed = [EmbeddingSet.from_arrays(part.vectors, labels) for part in (items, again)]
    report = evaluate(unnamed[0], gallery=unnamed[1])  # row numbers say nothing
    assert get_recall(report) == 1
    assert not any("in the gallery" in reason for reason in report.reasons)


def test_bursts_are_noticed_and_left_out() -> None:
    """Photos in bursts of four: within a burst they are near copies, across bursts a class is hard."""
    draw = np.random.default_rng(0)
    centres = np.repeat(draw.normal(size=(20, 32)), 16, axis=0)
    bursts = np.repeat(2.5 * draw.normal(size=(80, 32)), 4, axis=0)
    vectors = centres + bursts + 0.2 * draw.normal(size=(320, 32))
    items = EmbeddingSet.from_arrays(
        vectors, np.repeat(np.arange(20), 16), metadata={"day": np.repeat(np.arange(80), 4)}
    )
    report = evaluate(items)
    by_day, by_copy = (evaluate(items, exclude_same=form) for form in ("day", "near-copy"))
    assert get_recall(report) > 0.95
    assert get_recall(by_day) < 0.7
    assert get_recall(by_copy) == pytest.approx(get_recall(by_day), abs=0.02)
    noticed = next(reason for reason in report.reasons if "near copies" in reason)
    assert f"recall@1 is {100 * get_recall(by_copy):.1f} %" in noticed
    assert "--exclude-same" in noticed
    assert not any("near copies" in reason for reason in evaluate(make_clusters(0, dim=16)).reasons)
    assert not any("near copies" in reason for reason in evaluate(make_sessions(0, 20, 10)).reasons)
