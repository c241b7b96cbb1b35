"""Points that thresholds a density score: the same decision from a bundle, a buffer and a rebuilt index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from api_schemas.operating_point import OperatingPoint, Score
from common.errors import BundleError
from decision.scorer_registry import open_scorer
from embeddings.hashes import hash_cohort
from embeddings.similarity import compute_pair_similarities
from index.gallery.gallery import Gallery
from index.gallery.live_gallery import LiveGallery
from index.items.stored_item import StoredItem
from tests.index.conftest import NEVER, MakeBundle, make_items, make_small_config, make_unit_rows, point

RNG = np.random.default_rng(11)
ITEMS = make_items(make_unit_rows(RNG, 200))
COHORT = make_items(make_unit_rows(RNG, 60))
QUERIES = make_unit_rows(RNG, 12)
SCORE = Score(
    kind="density",
    form="csls",
    parameters={"neighbours": [10], "weights": [1.0], "slope": 1.0, "intercept": 0.0},
    cohort_sha256=hash_cohort(COHORT.vectors),
)
SCORER = open_scorer(SCORE, COHORT.vectors)


def deciding(target: str, threshold: float) -> OperatingPoint:
    """A point that thresholds the density score."""
    return point(target, threshold, items=200).with_changes(score=SCORE)


def score(a: np.ndarray, b: np.ndarray) -> float:
    """The score of one pair, from its definition."""
    similarity = compute_pair_similarities(a[None], b[None])
    return float(SCORER(similarity, SCORER.compute_densities(a[None]), SCORER.compute_densities(b[None]))[0])


@pytest.fixture
def bundle(make_bundle: MakeBundle) -> Path:
    """A bundle decided by density."""
    both = [deciding("fpir", 0.1), deciding("far", 0.1)]
    return make_bundle(
        ITEMS,
        make_small_config("hnsw"),
        operating_points=both,
        active={"match": both[0].id, "verify": both[1].id},
        cohort=COHORT,
    )


def test_the_best_candidate_by_score_decides(bundle: Path) -> None:
    gallery = Gallery.open(bundle)
    for query, answer in zip(QUERIES, gallery.match(QUERIES, k=200), strict=True):
        scores = [score(query, row) for row in ITEMS.vectors]
        best = int(np.argmax(scores))
        assert (answer.id, answer.score) == (f"i{best}", scores[best])
        assert answer.decision == ("match" if np.float32(scores[best]) >= np.float32(0.1) else "unknown")
    pair = gallery.verify(QUERIES[0], ITEMS.vectors[0])[0]
    assert pair.score == score(QUERIES[0], ITEMS.vectors[0])
    assert gallery.search(QUERIES[:1], 1)[0][0].score == score(
        QUERIES[0], ITEMS.vectors[int(gallery.search(QUERIES[:1], 1)[0][0].id[1:])]
    )


def test_written_items_are_scored_alike_before_and_after_a_rebuild(bundle: Path, tmp_path: Path) -> None:
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
        live.upsert([StoredItem("new", "x", QUERIES[0])])
        before = live.gallery.match(QUERIES)
        assert (before[0].id, before[0].score) == ("new", score(QUERIES[0], QUERIES[0]))
        live.rebuild()
        assert live.gallery.match(QUERIES) == before


def test_another_cohort_is_refused(make_bundle: MakeBundle) -> None:
    for cohort in (None, ITEMS):
        with pytest.raises(BundleError, match="cohort"):
            make_bundle(ITEMS, operating_points=[deciding("far", 0.1)], cohort=cohort)


def test_a_density_point_that_comes_later_has_its_densities(make_bundle: MakeBundle, tmp_path: Path) -> None:
    plain = make_bundle(ITEMS, make_small_config("hnsw"), match=0.9, cohort=COHORT)

    def check(gallery: Gallery, *names: str) -> None:
        hits = gallery.search(QUERIES[0], 300, exact=True)[0]
        assert {*names} <= {hit.id for hit in hits}
        for hit in hits:
            vector = gallery.view.get_vector(hit.id)
            assert vector is not None
            assert hit.score == pytest.approx(score(QUERIES[0], vector), abs=1e-6)

    with Gallery.open(plain) as gallery:
        gallery.decide_by(deciding("fpir", 0.1))
        check(gallery)
    with LiveGallery.open(plain, tmp_path / "data", NEVER) as live:
        live.upsert([StoredItem("a", "x", QUERIES[1])])
        live.gallery.decide_by(deciding("fpir", 0.1))
        live.upsert([StoredItem("b", "x", QUERIES[2])])
        check(live.gallery, "a", "b")
        live.rebuild()
        check(live.gallery, "a", "b")
    with LiveGallery.open(plain, tmp_path / "data", NEVER) as live:
        live.gallery.decide_by(deciding("fpir", 0.1))
        check(live.gallery, "a", "b")
