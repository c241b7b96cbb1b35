"""The mean of a class decides as a loop over its items says, through writes, filters and rebuilds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from api_schemas.operating_point import Aggregate, OperatingPoint, Score
from decision.decider import Decider
from decision.errors import OtherRule
from decision.scorer_registry import open_scorer
from decision.scorers import CosineScorer, Scorer
from embeddings.hashes import hash_cohort
from embeddings.similarity import compute_pair_similarities
from index.gallery.gallery import Gallery
from index.gallery.live_gallery import LiveGallery
from index.items.stored_item import StoredItem
from index.search.match_rules import MATCH_RULES, MeanOfClass
from tests.index.conftest import NEVER, MakeBundle, make_items, make_small_config, make_unit_rows, point

RNG = np.random.default_rng(21)
CENTRES = RNG.normal(size=(40, 16))
LABELS = RNG.integers(0, 40, 300)
ITEMS = make_items(
    np.float32(CENTRES[LABELS] + 0.7 * RNG.normal(size=(300, 16))),
    [f"c{code}" for code in LABELS],
    camera=np.arange(300) % 3,
)
QUERIES = make_unit_rows(RNG, 9)
COHORT = make_items(make_unit_rows(RNG, 60))
DENSITY = Score(
    kind="density",
    form="csls",
    parameters={"neighbours": [10], "weights": [1.0], "slope": 1.0, "intercept": 0.0},
    cohort_sha256=hash_cohort(COHORT.vectors),
)
Stored = dict[str, StoredItem]


def for_means(threshold: float, score: Score) -> OperatingPoint:
    made = point("fpir", threshold, items=300)
    target = made.target.model_copy(update={"aggregate": "mean_of_class"})
    return made.with_changes(target=target, score=score)


def stored() -> Stored:
    return {
        str(ITEMS.ids[row]): StoredItem(
            str(ITEMS.ids[row]), str(ITEMS.labels[row]), ITEMS.vectors[row], {"camera": row % 3}
        )
        for row in range(len(ITEMS))
    }


def loop(
    items: Stored,
    query: np.ndarray,
    scorer: Scorer,
    counts: Callable[[StoredItem], bool] = lambda _: True,
) -> dict[str, float]:
    """The mean score of every class, one pair at a time; with a copy of the query it is that of the copy."""
    scores: dict[str, list[float]] = {}
    copies: dict[str, float] = {}
    density = scorer.compute_densities(query[None])
    for item in items.values():
        if counts(item):
            similarity = compute_pair_similarities(query[None], item.vector[None])
            score = scorer(similarity, density, scorer.compute_densities(item.vector[None]))
            scores.setdefault(item.label, []).append(float(score[0]))
            if similarity[0] >= 0.999999:
                copies[item.label] = max(copies.get(item.label, -np.inf), float(score[0]))
    means = {label: float(np.float32(np.mean(of_label))) for label, of_label in scores.items()}
    return means | {label: score for label, score in copies.items() if score > means[label]}


def expect(gallery: Gallery, items: Stored, scorer: Scorer, threshold: float) -> None:
    """Every query is decided as the loop says; the nearest item of the class is named."""
    for query, match in zip(QUERIES, gallery.match(QUERIES, k=len(items)), strict=True):
        means = loop(items, query, scorer)
        best, second = sorted(means.values(), reverse=True)[:2]
        assert match.label is not None
        assert match.score == pytest.approx(best, abs=1e-6)
        assert means[match.label] == pytest.approx(best, abs=1e-6)
        assert match.margin == pytest.approx(best - second, abs=2e-6)
        assert match.decision == ("match" if match.score >= np.float32(threshold) else "unknown")
        of_class = [item for item in items.values() if item.label == match.label]
        similar = {
            item.id: float(compute_pair_similarities(query[None], item.vector[None])[0]) for item in of_class
        }
        assert (match.id, match.similarity) == min(similar.items(), key=lambda pair: (-pair[1], pair[0]))


@pytest.mark.parametrize("kind", ["cosine", "density"])
def test_decisions_are_those_of_a_loop_through_writes_and_rebuilds(
    make_bundle: MakeBundle, tmp_path: Path, kind: str
) -> None:
    score = Score() if kind == "cosine" else DENSITY
    scorer = CosineScorer() if kind == "cosine" else open_scorer(DENSITY, COHORT.vectors)
    # in the middle, so that both decisions occur
    best = [max(loop(stored(), query, scorer).values()) for query in QUERIES]
    threshold = float(np.float32(np.median(best)))
    deciding = for_means(threshold, score)
    bundle = make_bundle(
        ITEMS,
        make_small_config("hnsw"),
        operating_points=[deciding],
        active={"match": deciding.id, "verify": None},
        cohort=COHORT,
    )
    items = stored()
    with Gallery.open(bundle) as gallery:
        expect(gallery, items, scorer, threshold)
        assert {match.decision for match in gallery.match(QUERIES)} == {"match", "unknown"}
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
        new = [StoredItem(f"n{n}", f"c{n % 45}", row, {}) for n, row in enumerate(make_unit_rows(RNG, 60))]
        new += [StoredItem("i5", "c1", make_unit_rows(RNG, 1)[0], {})]
        live.upsert(new)
        items |= {item.id: item for item in new}
        gone = [name for number, name in enumerate(list(items)) if number % 4 == 0]
        live.delete(gone)
        items = {name: item for name, item in items.items() if name not in gone}
        expect(live.gallery, items, scorer, threshold)
        live.rebuild()
        expect(live.gallery, items, scorer, threshold)


def test_a_filter_and_the_query_itself_count_in_no_mean(make_bundle: MakeBundle) -> None:
    deciding = for_means(0.3, Score())
    bundle = make_bundle(ITEMS, operating_points=[deciding], active={"match": deciding.id, "verify": None})
    with Gallery.open(bundle) as gallery:
        queries, names = ITEMS.vectors[:20], [str(name) for name in ITEMS.ids[:20]]
        matches = gallery.match(queries, k=300, filter={"camera": {"$ne": 1}}, exclude_ids=names)
        for query, name, match in zip(queries, names, matches, strict=True):
            means = loop(
                stored(),
                query,
                CosineScorer(),
                lambda item, name=name: item.metadata["camera"] != 1 and item.id != name,  # type: ignore[misc]
            )
            assert match.score == pytest.approx(max(means.values()), abs=1e-6)
            assert match.id != name
        unmatched = gallery.match(QUERIES[:1], filter={"camera": 9})[0]
        assert (unmatched.decision, unmatched.label, unmatched.score) == ("unknown", None, None)


def test_candidates_are_the_classes_of_the_nearest(make_bundle: MakeBundle) -> None:
    deciding = for_means(0.3, Score())
    bundle = make_bundle(ITEMS, operating_points=[deciding], active={"match": deciding.id, "verify": None})
    with Gallery.open(bundle) as gallery:
        decider = Decider(deciding, CosineScorer())
        results = MeanOfClass(gallery.view, decider).propose(QUERIES, 7)
        for query, hits in zip(QUERIES, results, strict=True):
            nearest = gallery.search(query, 7)[0]
            assert {hit.label for hit in hits} == {hit.label for hit in nearest}
            means = loop(stored(), query, CosineScorer())
            assert [hit.score for hit in hits] == pytest.approx([means[hit.label] for hit in hits], abs=1e-6)


def test_a_point_decides_by_no_other_rule(make_bundle: MakeBundle) -> None:
    deciding = for_means(0.3, Score())
    bundle = make_bundle(ITEMS, operating_points=[deciding], active={"match": deciding.id, "verify": None})
    with Gallery.open(bundle) as gallery:
        assert gallery.match(QUERIES, aggregate="mean_of_class") == gallery.match(QUERIES)
        with pytest.raises(OtherRule, match="calibrated for the aggregate 'mean_of_class'"):
            gallery.match(QUERIES, aggregate="nearest")
        gallery.decide_by(point("fpir", 0.3))
        assert gallery.match(QUERIES, aggregate="nearest") == gallery.match(QUERIES)
        with pytest.raises(OtherRule, match="calibrated for the aggregate 'nearest'"):
            gallery.match(QUERIES, aggregate="mean_of_class")


def test_every_rule_is_registered() -> None:
    assert set(MATCH_RULES) == set(get_args(Aggregate))
    assert {aggregate: rule.reads_whole_classes for aggregate, rule in MATCH_RULES.items()} == {
        "nearest": False,
        "mean_of_class": True,
        "evidence": False,
    }


@pytest.mark.parametrize("kind", ["cosine", "density"])
def test_a_copy_scores_as_its_item_alone(make_bundle: MakeBundle, kind: str) -> None:
    score = Score() if kind == "cosine" else DENSITY
    scorer = CosineScorer() if kind == "cosine" else open_scorer(DENSITY, COHORT.vectors)
    deciding = for_means(0.3, score)
    bundle = make_bundle(
        ITEMS, operating_points=[deciding], active={"match": deciding.id, "verify": None}, cohort=COHORT
    )
    with Gallery.open(bundle) as gallery:
        for row, match in enumerate(gallery.match(ITEMS.vectors[:20])):
            means = loop(stored(), ITEMS.vectors[row], scorer)
            assert match.label == ITEMS.labels[row]
            assert match.score == pytest.approx(max(means.values()), abs=1e-6)
            assert match.reason == ("copy" if match.decision == "match" else None)
        if kind == "cosine":
            decided = gallery.match(ITEMS.vectors)
            assert {(match.decision, match.reason) for match in decided} == {("match", "copy")}
