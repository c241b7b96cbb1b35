"""Answers of a gallery, against brute force."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from api_schemas.manifest import SelfRecall
from api_schemas.operating_point import AnswerProbability, GroupTarget, OperatingPoint
from common.errors import InputError
from decision.errors import NoOperatingPoint, OtherGroup
from embeddings.embedding_set import EmbeddingSet
from embeddings.similarity import compute_pair_similarities
from index.gallery.gallery import Gallery
from tests.index.conftest import (
    KINDS,
    MakeBundle,
    make_items,
    make_small_config,
    make_unit_rows,
    point,
    read_vectors,
)


def brute_force(
    items: EmbeddingSet, query: NDArray[np.float32], k: int, rows: NDArray[Any] | None = None
) -> list[tuple[str, float]]:
    """Ids and similarities of the best k, one pair at a time, ties by id."""
    chosen = range(len(items)) if rows is None else rows
    pairs = [
        (float(compute_pair_similarities(query[None], items.vectors[row][None])[0]), str(items.ids[row]))
        for row in chosen
    ]
    return [(item, similarity) for similarity, item in sorted(pairs, key=lambda pair: (-pair[0], pair[1]))][
        :k
    ]


def draw_with_ties(rng: np.random.Generator, n: int) -> NDArray[np.float32]:
    """Unit rows among which equal and nearly equal ones are common."""
    vectors = make_unit_rows(rng, n, 8)
    vectors[rng.integers(0, n, n // 3)] = vectors[0]
    vectors[rng.integers(0, n, n // 5)] = vectors[1]
    near = rng.integers(0, n, n // 5)
    vectors[near] = np.nextafter(vectors[2], np.float32(2))
    return vectors


@pytest.mark.parametrize("k", [1, 3, 10, 200, 1000])
def test_exact_answers_are_those_of_brute_force_ties_included(make_bundle: MakeBundle, k: int) -> None:
    rng = np.random.default_rng(k)
    items = make_items(draw_with_ties(rng, 200))
    queries = np.concatenate([items.vectors[:5], make_unit_rows(rng, 5, 8)])
    for kind in KINDS:
        gallery = Gallery.open(make_bundle(items, make_small_config(kind)))
        results = gallery.search(queries, k, exact=True)
        for query, hits in zip(queries, results, strict=True):
            assert [(hit.id, hit.similarity) for hit in hits] == brute_force(items, query, k)


def test_flat_is_exact_without_the_flag(make_bundle: MakeBundle) -> None:
    rng = np.random.default_rng(3)
    items = make_items(draw_with_ties(rng, 500))
    gallery = Gallery.open(make_bundle(items, make_small_config("flat")))
    for query in (*items.vectors[:10], *make_unit_rows(rng, 10, 8)):
        ranked = [(hit.id, hit.similarity) for hit in gallery.search(query, 7)[0]]
        assert ranked == brute_force(items, query, 7)


@pytest.mark.parametrize(
    ("kind", "copies"),
    [("hnsw", 200), ("hnsw", 1_000), ("hnsw", 3_000), ("hnsw_sq8", 1_000), ("ivf_pq", 1_000)],
)
def test_many_copies_of_one_vector_hide_no_other_row(make_bundle: MakeBundle, kind: str, copies: int) -> None:
    rng = np.random.default_rng(copies)
    vectors = make_unit_rows(rng, 12_000, 32)
    vectors[rng.choice(12_000, copies, replace=False)] = vectors[5]
    items = make_items(vectors)
    path = make_bundle(items, make_small_config(kind))
    gallery = Gallery.open(path)
    top = gallery.search(items.vectors, 1)
    own = compute_pair_similarities(items.vectors, items.vectors)
    assert all(hits[0].similarity >= similarity for hits, similarity in zip(top, own.tolist(), strict=True))
    assert gallery.manifest.counts.distinct_vectors == len(np.unique(items.vectors, axis=0))
    assert gallery.probe(1_000) == (1_000, 1_000)


@pytest.mark.parametrize("kind", ["hnsw", "hnsw_sq8", "ivf_pq"])
def test_near_copies_too_dense_for_codes_are_found_row_by_row(make_bundle: MakeBundle, kind: str) -> None:
    rng = np.random.default_rng(9)
    vectors = make_unit_rows(rng, 3_000, 32)
    copies = vectors[7] + rng.normal(size=(1_000, 32), scale=1e-4)
    vectors[1_000:2_000] = copies / np.linalg.norm(copies, axis=1, keepdims=True)
    items = make_items(vectors)
    gallery = Gallery.open(make_bundle(items, make_small_config(kind)))
    assert [hits[0].id for hits in gallery.search(items.vectors, 1)] == items.ids.tolist()
    assert (gallery.manifest.counts.side_list > 500) == (kind != "hnsw")


def test_rows_the_engine_misses_are_searched_all_the_same(
    make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = np.arange(0, 300, 7), SelfRecall(probed=300, missed=43, linked=0, share_upper=0.0)
    monkeypatch.setattr("index.search.generation.audit_self_recall", lambda *_: audit)
    rng = np.random.default_rng(2)
    items = make_items(make_unit_rows(rng, 300), even=np.arange(300) % 2 == 0)
    gallery = Gallery.open(make_bundle(items, make_small_config("hnsw")))
    assert gallery.compute_stats()["side_list"] == gallery.manifest.counts.side_list == 43
    for hits, query in zip(gallery.search(items.vectors, 5), items.vectors, strict=True):
        assert [(hit.id, hit.similarity) for hit in hits] == brute_force(items, query, 5)
    evens = np.arange(0, 300, 2)
    monkeypatch.setattr("index.search.generation.EXACT_ROWS", 10)
    monkeypatch.setattr("index.engines.hnsw.ROWS_PER_STEP", 0)
    for query in items.vectors[:40]:
        hits = gallery.search(query, 5, filter={"even": True})[0]
        assert [hit.id for hit in hits] == [item for item, _ in brute_force(items, query, 5, evens)]


@pytest.mark.parametrize("ulps", [-1, 0, 1])
def test_the_threshold_is_met_exactly_whatever_the_engine_and_the_batch(
    make_bundle: MakeBundle, ulps: int
) -> None:
    rng = np.random.default_rng(6)
    items = make_items(make_unit_rows(rng, 400))
    query = make_unit_rows(rng, 1)[0]
    threshold = np.float32(brute_force(items, query, 1)[0][1])
    if ulps:
        threshold = np.nextafter(threshold, np.float32(2 * ulps))
    expected = "unknown" if ulps > 0 else "match"
    batch = np.concatenate([make_unit_rows(rng, 63), query[None]])
    for kind in KINDS:
        path = make_bundle(
            items, make_small_config(kind), match=float(threshold), verify=float(threshold), name=kind
        )
        gallery = Gallery.open(path)
        alone = gallery.match(query)[0]
        in_batch = gallery.match(batch)[-1]
        assert alone == in_batch
        assert alone.decision == expected
        assert alone.id is not None
        vector = gallery.view.get_vector(alone.id)
        assert vector is not None
        pair = gallery.verify(query, vector)[0]
        both = gallery.verify(batch, np.tile(vector, (64, 1)))[-1]
        assert pair == both
        assert (pair.decision == "match") == (expected == "match")
        kept = gallery.search(query, 5, min_score=float(threshold))[0]
        assert bool(kept) == (expected == "match")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fraction", [1.0, 0.5, 0.1, 0.01, 0.001])
def test_filters_answer_fully_and_rightly(
    make_bundle: MakeBundle, kind: str, fraction: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.search.generation.EXACT_ROWS", 150)  # so that the engine is searched as well
    monkeypatch.setattr("index.engines.hnsw.ROWS_PER_STEP", 0)
    monkeypatch.setattr("index.engines.ivf_pq.SCANNED_PER_ROW", 10**9)
    rng = np.random.default_rng(8)
    n = 4_000
    items = make_items(make_unit_rows(rng, n), place=rng.permutation(n))
    gallery = Gallery.open(make_bundle(items, make_small_config(kind)))
    below = int(fraction * n)
    condition = {"place": {"$lt": below}}
    rows = np.flatnonzero(items.metadata["place"] < below)
    queries = make_unit_rows(rng, 40)
    right = 0
    for query, hits in zip(queries, gallery.search(queries, 10, filter=condition), strict=True):
        assert len(hits) == min(10, below)
        assert all(hit.metadata["place"] < below for hit in hits)
        expected = {item for item, _ in brute_force(items, query, 10, rows)}
        right += len(expected & {hit.id for hit in hits})
    assert right / (40 * min(10, below)) >= 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_no_item_matches_or_k_is_beyond_the_gallery(make_bundle: MakeBundle, kind: str) -> None:
    items = make_items(make_unit_rows(np.random.default_rng(0), 30))
    gallery = Gallery.open(make_bundle(items, make_small_config(kind), match=0.5))
    assert gallery.search(items.vectors[:2], 5, filter={"label": "nobody"}) == [[], []]
    assert [len(hits) for hits in gallery.search(items.vectors[:2], 500)] == [30, 30]
    unmatched = gallery.match(items.vectors[0], filter={"label": "nobody"})[0]
    assert unmatched.decision == "unknown"
    assert unmatched.id is unmatched.label is unmatched.score is unmatched.margin is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_query_by_id_leaves_itself_out(make_bundle: MakeBundle, kind: str) -> None:
    items = make_items(draw_with_ties(np.random.default_rng(4), 100))
    gallery = Gallery.open(make_bundle(items, make_small_config(kind)))
    results = gallery.search(items.vectors, 100, exclude_ids=[*items.ids[:99].tolist(), None])
    for row, hits in enumerate(results):
        excluded = {str(items.ids[row])} if row < 99 else set()
        assert {hit.id for hit in hits} == set(items.ids.tolist()) - excluded
    with pytest.raises(InputError, match="3 entries for 2 queries"):
        gallery.search(items.vectors[:2], 1, exclude_ids=["a", "b", "c"])


@pytest.mark.parametrize(
    ("vectors", "says"),
    [
        ([[float("nan")] * 16], "NaN"),
        ([[float("inf")] * 16], "infinite"),
        ([[0.0] * 16], "zero vector"),
        ([[1.0] * 15], "16 numbers, found 15"),
        (np.ones((2, 17), dtype=np.float32), "16 numbers, found 17"),
        (np.full((1, 16), np.nan, dtype=np.float32), "NaN"),
        ([["a"] * 16], "must be numbers"),
        (np.empty((0, 16)), "non-empty"),
        ([[1.0], [1.0, 2.0]], "rectangular"),
    ],
)
def test_vectors_that_mean_nothing_are_refused_never_unknown(
    make_bundle: MakeBundle, vectors: Any, says: str
) -> None:
    gallery = Gallery.open(
        make_bundle(make_items(make_unit_rows(np.random.default_rng(0), 20)), match=0.5, verify=0.5)
    )
    for search in (
        lambda: gallery.search(vectors, 3),
        lambda: gallery.match(vectors),
        lambda: gallery.verify(vectors, vectors),
    ):
        with pytest.raises(InputError, match=says):
            search()


def test_rows_of_any_length_and_type_are_brought_to_length_one(make_bundle: MakeBundle) -> None:
    items = make_items(make_unit_rows(np.random.default_rng(0), 50))
    gallery = Gallery.open(make_bundle(items))
    plain = [hit.id for hit in gallery.search(items.vectors[3], 5)[0]]
    for query in (items.vectors[3].astype(float) * 1e6, (items.vectors[3] * 1000).astype(np.float16)):
        assert [hit.id for hit in gallery.search(query, 5)[0]] == plain
    integers = np.eye(16, dtype=np.int64)[:1] * 7
    assert gallery.search(integers, 1)[0][0].similarity == gallery.search(np.eye(16)[:1], 1)[0][0].similarity
    with pytest.raises(InputError, match="from 1"):
        gallery.search(items.vectors[3], 0)


def test_without_a_point_decisions_are_refused_with_the_reason(make_bundle: MakeBundle) -> None:
    gallery = Gallery.open(make_bundle(make_items(make_unit_rows(np.random.default_rng(0), 20))))
    with pytest.raises(NoOperatingPoint, match="only 3 classes") as caught:
        gallery.match(np.ones(16))
    assert caught.value.reasons == ["only 3 classes."]
    with pytest.raises(NoOperatingPoint, match="target-far"):
        gallery.verify(np.ones(16), np.ones(16))
    assert len(gallery.search(np.ones(16), 3)[0]) == 3


def test_a_match_names_its_best_candidate_and_the_margin(make_bundle: MakeBundle) -> None:
    vectors = np.array([[1, 0, 0], [0.9, 0.1, 0], [0, 1, 0], [0, 0, 1]], dtype=float)
    items = EmbeddingSet.from_arrays(vectors, ["a", "a", "b", "c"], ["1", "2", "3", "4"])
    gallery = Gallery.open(make_bundle(items, match=0.8))
    query = np.array([0.9, 0.436, 0.0])
    answer = gallery.match(query)[0]
    by_id = {hit.id: hit for hit in gallery.search(query, 4)[0]}
    assert (answer.decision, answer.label, answer.id) == ("match", "a", "2")
    assert answer.similarity == answer.score == by_id["2"].similarity
    assert answer.margin == by_id["2"].score - by_id["3"].score
    assert not answer.beyond_proof
    assert gallery.match(query, k=1)[0].margin is None
    assert gallery.match(query, exclude_ids=["2"])[0].id == "1"
    unsure = gallery.match(np.array([1.0, 1.0, 1.0]))[0]
    assert (unsure.decision, unsure.id) == ("unknown", "2")


def test_the_probability_of_an_answer_knows_the_gallery_and_the_share_of_unknown_queries(
    make_bundle: MakeBundle,
) -> None:
    weights = {"constant": -8.0, "score": 12.0, "gap": 6.0, "log_classes": -1.0}
    answers = AnswerProbability(
        weights={
            **{f"first.{name}": weight for name, weight in weights.items()},
            **{f"alone.first.{name}": weight for name, weight in weights.items() if name != "gap"},
            "second.constant": -2.0,
            "other.constant": -3.0,
            "alone.other.constant": -3.0,
        },
        ranges={"score": (-1.0, 1.0), "gap": (0.0, 2.0)},
        unknown_share=0.5,
    )
    vectors = np.array([[1, 0, 0], [0.9, 0.1, 0], [0, 1, 0], [0, 0, 1]], dtype=float)
    items = EmbeddingSet.from_arrays(vectors, ["a", "a", "b", "c"], ["1", "2", "3", "4"])
    gallery = Gallery.open(make_bundle(items, match=0.8))
    assert gallery.match(vectors[0])[0].probability is None  # a point without this calibration
    plain = gallery.operating_points[gallery.match(vectors[0])[0].operating_point]
    gallery.decide_by(plain.with_changes(answer=answers))
    for query in (np.array([0.9, 0.436, 0.0]), np.array([1.0, 0.8, 0.5])):
        for share in (0.1, 0.5, 0.9):
            answer = gallery.match(query, candidates=3, unknown_share=share)[0]
            assert answer.score is not None
            assert answer.margin is not None
            odds = (
                (1 - share)
                / share
                * np.exp([-8 + 12 * answer.score + 6 * answer.margin - np.log(3), -2.0, -3.0])
            )
            first, second = (odds / (1 + odds.sum()))[:2]
            right = first if answer.decision == "match" else 1 / (1 + odds.sum())
            assert answer.probability == pytest.approx(right)
            shown = [candidate.probability for candidate in answer.candidates]
            assert shown == [pytest.approx(first), pytest.approx(second), None]
    assert gallery.match(query)[0] == gallery.match(query, unknown_share=0.5)[0]
    alone = gallery.match(vectors[0], k=1)[0]
    odds = np.exp([-8 + 12 - np.log(3), -3.0])
    assert alone.margin is None
    assert alone.probability == pytest.approx(odds[0] / (1 + odds.sum()))
    for share in (0, 1):
        with pytest.raises(InputError, match="above 0 and below 1"):
            gallery.match(query, unknown_share=share)


def test_a_request_chooses_the_point_of_its_group(make_bundle: MakeBundle) -> None:
    items = make_items(make_unit_rows(np.random.default_rng(0), 40))

    def build(threshold: float, group: str | None, mode: Literal["every", "own"] = "own") -> OperatingPoint:
        made = point("fpir", threshold, items=40)
        column = None if group is None else GroupTarget(column="site", values=group.split(","), mode=mode)
        return made.with_changes(target=made.target.model_copy(update={"group": column}))

    everyone, north, south = build(0.8, None), build(0.7, "north"), build(0.9, "south")
    points = [everyone, north, south]
    gallery = Gallery.open(
        make_bundle(items, operating_points=points, active={"verify": None, "match": everyone.id})
    )
    query = items.vectors[3]
    assert gallery.match(query)[0].threshold == 0.8
    assert gallery.match(query, group="north")[0].threshold == 0.7
    assert gallery.match(query, group="south")[0].operating_point == south.id
    with pytest.raises(OtherGroup, match="group 'west'; there are points for north, south"):
        gallery.match(query, group="west")
    gallery.decide_by(north)
    with pytest.raises(OtherGroup, match="is for the group 'north' of the column 'site': say in"):
        gallery.match(query)
    gallery.decide_by(build(0.85, "north,south", "every"))
    assert [gallery.match(query, group=name)[0].threshold for name in ("north", "south", None)] == [0.85] * 3


def test_a_gallery_beyond_the_proof_says_so(make_bundle: MakeBundle) -> None:
    items = make_items(make_unit_rows(np.random.default_rng(0), 111))
    for proven, beyond in ((100, True), (101, False)):
        decides = point("fpir", 0.5, items=proven)
        path = make_bundle(items, operating_points=[decides], active={"match": decides.id, "verify": None})
        assert Gallery.open(path).match(items.vectors[0])[0].beyond_proof is beyond


def test_many_threads_get_the_same_answers(make_bundle: MakeBundle) -> None:
    rng = np.random.default_rng(5)
    items = make_items(make_unit_rows(rng, 2_000), place=np.arange(2_000))
    gallery = Gallery.open(make_bundle(items, make_small_config("hnsw")))
    queries = make_unit_rows(rng, 64)
    searches: list[dict[str, Any]] = [
        {},
        {"exact": True},
        {"filter": {"place": {"$lt": 100}}},
        {"filter": {"label": "c3"}},
    ]
    expected = [gallery.search(queries, 10, **options) for options in searches]
    gallery = Gallery.open(make_bundle(items, make_small_config("hnsw"), name="fresh"))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda turn: gallery.search(queries, 10, **searches[turn % 4]), range(32)))
    for turn, answer in enumerate(answers):
        assert [[hit[:4] for hit in hits] for hits in answer] == [
            [hit[:4] for hit in hits] for hits in expected[turn % 4]
        ]


def test_real_descriptors_are_found_exactly(make_bundle: MakeBundle, datasets: Path) -> None:
    base = read_vectors(datasets / "sift5k" / "sift5k_base.fvecs", np.float32)
    queries = read_vectors(datasets / "sift5k" / "sift5k_query.fvecs", np.float32)
    items = make_items(base)
    similarities = items.vectors.astype(float) @ (queries / np.linalg.norm(queries, axis=1, keepdims=True)).T
    for kind in KINDS:
        results = Gallery.open(make_bundle(items, make_small_config(kind), name=kind)).search(queries, 10)
        ranks = np.sort(-similarities, axis=0)[9]
        good = [
            sum(similarities[int(hit.id[1:]), query] >= -ranks[query] - 1e-7 for hit in hits) / 10
            for query, hits in enumerate(results)
        ]
        assert np.mean(good) >= (1.0 if kind == "flat" else 0.95)
