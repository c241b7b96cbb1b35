"""The evidence of a class decides as a loop that computes every class afresh says, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import BundleError
from decision.class_arrays import ClassArrays
from decision.class_evidence import ClassModels, from_fixed, to_fixed
from embeddings.similarity import compute_pair_similarities
from index.bundle import read_bundle, verify_bundle
from index.gallery.gallery import Gallery
from index.gallery.live_gallery import LiveGallery
from index.items.stored_item import StoredItem
from tests.index.conftest import NEVER, MakeBundle, make_items, make_small_config, make_unit_rows, point
from tests.index.evidence import COHORT, make_arrays, make_evidence_point, make_scorer, score_each

RNG = np.random.default_rng(31)
CENTRES = RNG.normal(size=(40, 16))
LABELS = RNG.integers(0, 40, 300)
ITEMS = make_items(
    np.float32(CENTRES[LABELS] + 0.7 * RNG.normal(size=(300, 16))),
    [f"c{code}" for code in LABELS],
    camera=np.arange(300) % 3,
)
QUERIES = make_unit_rows(RNG, 9)
Stored = dict[str, StoredItem]


def stored() -> Stored:
    columns = zip(ITEMS.ids.tolist(), ITEMS.labels.tolist(), ITEMS.vectors, strict=True)
    return {
        name: StoredItem(name, label, row, {"camera": number % 3})
        for number, (name, label, row) in enumerate(columns)
    }


def make(make_bundle: MakeBundle, form: str, kind: str = "hnsw", vectors: int = 1, **others: Any) -> Path:
    deciding = make_evidence_point(form, vectors=vectors)
    needs_cohort = deciding.score.cohort_sha256 is not None
    arguments: dict[str, Any] = {
        "operating_points": [deciding],
        "active": {"match": deciding.id, "verify": None},
        "cohort": COHORT if needs_cohort else None,
        "class_arrays": [make_arrays(form)],
        **others,
    }
    return make_bundle(ITEMS, make_small_config(kind), **arguments)


def expect(gallery: Gallery, items: Stored, form: str, k: int = 10_000) -> None:
    """Every query is decided as the loop says, over the classes of the k nearest."""
    scorer = make_scorer(form)
    for query, match in zip(QUERIES, gallery.match(QUERIES, k=k, candidates=50), strict=True):
        scores = score_each(items.values(), query, scorer)
        near = {
            item.id: float(compute_pair_similarities(query[None], item.vector[None])[0])
            for item in items.values()
        }
        nearest = sorted(items.values(), key=lambda item: (-near[item.id], item.id))[:k]
        scores = {label: scores[label] for label in {item.label for item in nearest}}
        ranked = sorted(scores, key=lambda label: (-scores[label][0], label))
        shown = [(entry.label, entry.score, entry.id) for entry in match.candidates]
        assert shown == [(label, *scores[label][:2]) for label in ranked[:50]]
        assert (match.label, match.score, match.id, match.similarity) == (ranked[0], *scores[ranked[0]])
        assert match.decision == ("match" if scores[ranked[0]][0] >= np.float32(0.3) else "unknown")
        assert match.margin == scores[ranked[0]][0] - scores[ranked[1]][0]


@pytest.mark.parametrize("form", ["similarity", "plda", "all"])
def test_decisions_are_those_of_a_loop_through_writes_and_rebuilds(
    make_bundle: MakeBundle, tmp_path: Path, form: str
) -> None:
    bundle, items = make(make_bundle, form), stored()
    with Gallery.open(bundle) as gallery:
        expect(gallery, items, form)
        expect(gallery, items, form, k=12)
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
        expect(live.gallery, items, form)
        new = [StoredItem(f"n{n}", f"c{n % 45}", row, {}) for n, row in enumerate(make_unit_rows(RNG, 60))]
        # a vector that is there already, under another label and a smaller id; an item that changes its class
        new += [StoredItem("a", "c41", items["i7"].vector), StoredItem("i5", "c1", items["i5"].vector)]
        new += [StoredItem("b", "b", items["i7"].vector)]
        live.upsert(new)
        items |= {item.id: item for item in new}
        expect(live.gallery, items, form)
        expect(live.gallery, items, form, k=12)
        gone = [name for number, name in enumerate(list(items)) if number % 4 == 0]
        live.delete(gone)
        items = {name: item for name, item in items.items() if name not in gone}
        expect(live.gallery, items, form)
        with Gallery.follow(bundle, tmp_path / "data") as follower:
            expect(follower, items, form)
        live.rebuild()
        expect(live.gallery, items, form)
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
        expect(live.gallery, items, form)
        live.delete(list(items))
        live.rebuild()
        assert live.gallery.match(QUERIES[:1])[0].label is None
        live.upsert(new)
        expect(live.gallery, {item.id: item for item in new}, form)


def test_a_filter_and_the_query_itself_count_for_no_class(make_bundle: MakeBundle, tmp_path: Path) -> None:
    scorer, items = make_scorer("all"), stored()
    with LiveGallery.open(make(make_bundle, "all"), tmp_path / "data", NEVER) as live:
        new = [StoredItem(f"i{n}", f"c{n % 7}", row, {"camera": n % 3}) for n, row in enumerate(QUERIES)]
        live.upsert(new)
        items |= {item.id: item for item in new}
        names = [f"i{n}" for n in range(20)]
        queries = np.stack([items[name].vector for name in names])
        for condition in (None, {"camera": {"$ne": 1}}):
            matches = live.gallery.match(queries, k=300, filter=condition, exclude_ids=names)
            for query, name, match in zip(queries, names, matches, strict=True):
                scores = score_each(
                    items.values(),
                    query,
                    scorer,
                    lambda item, name=name, all_cameras=condition is None: (  # type: ignore[misc]
                        item.id != name and (all_cameras or item.metadata["camera"] != 1)
                    ),
                )
                best = min(scores, key=lambda label: (-scores[label][0], label))
                assert (match.label, match.score, match.id, match.similarity) == (best, *scores[best])
        unmatched = live.gallery.match(QUERIES[:1], filter={"camera": 9})[0]
        assert (unmatched.decision, unmatched.label, unmatched.candidates) == ("unknown", None, ())


def test_a_batch_is_answered_as_its_queries_alone(make_bundle: MakeBundle) -> None:
    with Gallery.open(make(make_bundle, "all")) as gallery:
        alone = [gallery.match(query[None], candidates=3)[0] for query in QUERIES]
        assert gallery.match(QUERIES, candidates=3) == alone


@pytest.mark.parametrize("vectors", [1, 3])
def test_several_vectors_of_a_query_are_decided_together(make_bundle: MakeBundle, vectors: int) -> None:
    form, sizes = "all", [3, 1, 2, 3]
    scorer = make_scorer(form)
    with Gallery.open(make(make_bundle, form, vectors=vectors)) as gallery:
        matches = gallery.match(QUERIES, k=300, sizes=sizes, candidates=2)
    start = 0
    for match, size in zip(matches, sizes, strict=True):
        own = QUERIES[start : start + size]
        start += size
        each = [score_each(stored().values(), query, scorer) for query in own]
        labels = sorted(each[0])
        if vectors == 1:
            scores = {label: np.mean([of[label][0] for of in each]) for label in labels}
        else:
            scores = dict(zip(labels, score_pooled(own, each, labels), strict=True))
        best = min(labels, key=lambda label: (-np.float32(scores[label]), label))
        assert match.label == best
        assert match.score == pytest.approx(scores[best], abs=1e-6)
        nearest = min((of[best] for of in each), key=lambda found: (-found[2], found[1]))
        assert (match.id, match.similarity) == nearest[1:]
        assert match.beyond_proof == (size != vectors)
        assert len(match.candidates) == 2


def score_pooled(own: np.ndarray, each: list[dict[str, Any]], labels: list[str]) -> list[float]:
    """Scores of all classes with one query whose features are means over its vectors."""
    scorer, bundle_items, c = make_scorer("all"), stored(), len(labels)
    models = [[item for item in bundle_items.values() if item.label == label] for label in labels]
    rows = [np.stack([item.vector for item in members]) for members in models]
    densities = [
        from_fixed(to_fixed(scorer.compute_densities(of, np.array([label] * len(of)))).sum()) / len(of)
        for of, label in zip(rows, labels, strict=True)
    ]
    prepared = scorer.prepare(
        ClassModels(
            np.stack([from_fixed(to_fixed(of).sum(axis=0)) for of in rows]),
            np.array([len(of) for of in rows]),
            np.array(densities),
        )
    )
    trial = np.zeros(c, dtype=np.int64)
    of_query = [scorer.compute_trial_densities(query[None], trial, labels) for query in own]
    scores = scorer.score_trials(
        own.astype(np.float64).mean(axis=0)[None],
        trial,
        np.array([np.mean([of[label][2] for of in each]) for label in labels]),
        prepared,
        np.arange(c),
        np.mean(of_query, axis=0, dtype=np.float64),
        vectors=len(own),
    )
    return [float(score) for score in scores]


def test_the_class_model_travels_with_the_bundle(make_bundle: MakeBundle) -> None:
    bundle = make(make_bundle, "similarity-plda")
    (file,) = (bundle / "operating_points").glob("*.classes.npz")
    assert f"operating_points/{file.name}" in read_bundle(bundle).manifest.files
    verify_bundle(bundle)
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"classes\.npz"):
        Gallery.open(bundle)


def test_a_point_without_its_class_model_is_refused(make_bundle: MakeBundle) -> None:
    with pytest.raises(BundleError, match="needs the class model"):
        make(make_bundle, "similarity-plda", class_arrays=[])
    with pytest.raises(BundleError, match="needs the class model"):
        make(make_bundle, "similarity-plda", class_arrays=[ClassArrays(None, COHORT.labels)])
    with Gallery.open(make_bundle(ITEMS, match=0.3, name="nearest")) as gallery:
        with pytest.raises(BundleError, match="needs the class model"):
            gallery.decide_by(make_evidence_point("similarity-plda"))
        gallery.decide_by(make_evidence_point("similarity"))
        expect(gallery, stored(), "similarity")


def test_a_point_of_evidence_can_come_later(make_bundle: MakeBundle, tmp_path: Path) -> None:
    late = make_evidence_point("all")
    bundle = make(
        make_bundle,
        "all",
        operating_points=[point("fpir", 0.3), point("far", 0.3)],
        active={"match": None, "verify": None},
    )
    with LiveGallery.open(bundle, tmp_path / "data", NEVER) as live:
        items = stored()
        new = [StoredItem(f"n{n}", f"c{n % 45}", row, {}) for n, row in enumerate(make_unit_rows(RNG, 30))]
        live.upsert(new)
        live.delete(["i3", "n4"])
        items = {n: item for n, item in (items | {i.id: i for i in new}).items() if n not in ("i3", "n4")}
        live.gallery.decide_by(late)
        expect(live.gallery, items, "all")
        live.upsert([StoredItem("i3", "c0", QUERIES[0])])
        expect(live.gallery, items | {"i3": StoredItem("i3", "c0", QUERIES[0])}, "all")


@pytest.mark.parametrize("kind", ["flat", "hnsw", "hnsw_sq8", "ivf_pq"])
def test_an_item_that_is_asked_for_by_its_vector_is_a_match(make_bundle: MakeBundle, kind: str) -> None:
    """Also where its class is loose, and with the rounding of 16 bits; nothing less than a copy is one."""
    with Gallery.open(make(make_bundle, "similarity", kind)) as gallery:
        rounded = ITEMS.vectors.astype(np.float16).astype(np.float32)
        rounded /= np.linalg.norm(rounded, axis=1, keepdims=True)
        for queries in (ITEMS.vectors, rounded):
            for label, match in zip(ITEMS.labels, gallery.match(queries), strict=True):
                assert (match.decision, match.label, match.reason) == ("match", label, "copy")
                assert match.score >= 12
        turned = ITEMS.vectors + 0.02 * make_unit_rows(RNG, len(ITEMS))
        turned /= np.linalg.norm(turned, axis=1, keepdims=True)
        decided = gallery.match(turned)
        assert {match.reason for match in decided} == {None}
        assert max(match.score for match in decided) < 12
        itself = gallery.match(ITEMS.vectors[:20], exclude_ids=ITEMS.ids[:20].tolist())
        assert {match.reason for match in itself} == {None}
