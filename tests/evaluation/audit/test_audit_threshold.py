"""An audit against a naive loop over pairs and queries, on real and made-up data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import limen
from api_schemas.operating_point import OperatingPoint
from api_schemas.report import Audit, DistanceKind
from common.errors import InputError
from embeddings.embedding_set import EmbeddingSet
from embeddings.similarity import compute_pair_similarities
from evaluation.audit.audit_threshold import audit_threshold
from evaluation.audit.distance_threshold import convert_to_similarity
from tests.evaluation.samples import make_clusters


def accept(similarity: float, threshold: float, distance: DistanceKind) -> bool:
    """As somebody's tutorial writes it."""
    if distance == "similarity":
        return bool(similarity >= np.float32(threshold))
    if distance == "cosine":
        return 1 - similarity <= threshold
    return bool(np.sqrt(max(0.0, 2 - 2 * similarity)) <= threshold)


def count_slowly(
    items: EmbeddingSet,
    threshold: float,
    distance: DistanceKind,
    gallery: EmbeddingSet | None = None,
    unknown: EmbeddingSet | None = None,
) -> dict[str, float]:
    """The four rates, a pair and a query at a time."""
    references = items if gallery is None else gallery
    n, m = len(items), len(references)
    similar = compute_all(items, references)
    far, frr, fpir, fnir = ([] for _ in range(4))  # type: list[bool], list[bool], list[bool], list[bool]
    for i in range(n):
        by_class: dict[str, float] = {}
        for j in range(m):
            if gallery is None and i == j:
                continue
            label = str(references.labels[j])
            by_class[label] = max(by_class.get(label, -2.0), float(similar[i, j]))
            if gallery is None and i > j:
                continue
            accepted = accept(float(similar[i, j]), threshold, distance)
            if items.labels[i] == references.labels[j]:
                frr.append(not accepted)
            else:
                far.append(accepted)
        own = by_class.pop(str(items.labels[i]), None)
        best_other = max(by_class.values())
        if own is None:
            fpir.append(accept(best_other, threshold, distance))
            continue
        if gallery is None and unknown is None:
            fpir.append(accept(best_other, threshold, distance))
        fnir.append(not (accept(own, threshold, distance) and own > best_other))
    if unknown is not None:
        fpir = [accept(float(max(row)), threshold, distance) for row in compute_all(unknown, references)]
    elif gallery is not None and not fpir:
        raise AssertionError("the case has no unknown query")
    return {
        name: float(np.mean(events))
        for name, events in (("far", far), ("frr", frr), ("fpir", fpir), ("fnir", fnir))
    }


def compute_all(a: EmbeddingSet, b: EmbeddingSet) -> Any:
    return np.stack(
        [compute_pair_similarities(np.repeat(row[None], len(b), axis=0), b.vectors) for row in a.vectors]
    )


def check_against_loop(audit: Audit, expected: dict[str, float]) -> None:
    for name, rate in expected.items():
        assert getattr(audit, name) == pytest.approx(rate, abs=1e-12), name
        ends = getattr(audit, f"{name}_ci")
        if ends is not None:
            assert 0 <= ends[0] <= rate <= ends[1] <= 1, name


def read_texts(datasets: Path, classes: int, each: int, oos: int) -> tuple[EmbeddingSet, EmbeddingSet]:
    """Some intents, and texts that are of none."""
    with np.load(datasets / "clinc150" / "clinc150_minilm.npz", allow_pickle=False) as file:
        vectors, labels = file["embeddings"].astype(np.float32), file["labels"]
    names = [name for name in np.unique(labels) if name != "oos"][:classes]
    rows = np.concatenate([np.flatnonzero(labels == name)[:each] for name in names])
    strange = np.flatnonzero(labels == "oos")[:oos]
    return (
        EmbeddingSet.from_arrays(vectors[rows], labels[rows]),
        EmbeddingSet.from_arrays(vectors[strange], labels[strange]),
    )


def read_characters(datasets: Path, classes: int) -> EmbeddingSet:
    """Pictures of characters, 15 x 15 grey values less their mean."""
    with np.load(datasets / "omniglot" / "omniglot.npz", allow_pickle=False) as file:
        labels = file["label"]
        rows = np.flatnonzero(labels < classes)
        bits = np.unpackbits(file["images_packed"][rows], axis=2, count=105)
    small = bits.reshape(-1, 15, 7, 15, 7).mean(axis=(2, 4)).reshape(len(rows), -1)
    return EmbeddingSet.from_arrays(small - small.mean(axis=0), labels[rows])


@pytest.mark.parametrize(("threshold", "distance"), [(0.6, "similarity"), (0.45, "cosine"), (0.9, "l2")])
def test_texts_with_real_unknown_queries(datasets: Path, threshold: float, distance: DistanceKind) -> None:
    items, unknown = read_texts(datasets, 25, 6, 40)
    audit = audit_threshold(items, threshold, distance, unknown=unknown).audit
    check_against_loop(audit, count_slowly(items, threshold, distance, unknown=unknown))
    assert audit.unknown_queries == 40
    assert audit.far_ci is not None
    assert audit.fpir_ci is None or audit.fpir_ci[1] < 1


def test_characters_each_class_left_out(datasets: Path) -> None:
    items = read_characters(datasets, 20)
    audit = audit_threshold(items, 0.7).audit
    check_against_loop(audit, count_slowly(items, 0.7, "similarity"))
    assert 0 < audit.fpir < 1  # type: ignore[operator]
    per_class = {row.label: row for row in audit.worst}
    for label, row in per_class.items():
        own = np.flatnonzero(items.labels == label)
        similar = compute_all(items.subset(own), items)
        others = similar[:, items.labels != label]
        assert row.far == pytest.approx(float(np.mean(others >= np.float32(0.7))), abs=1e-12)
        same = similar[:, own][~np.eye(len(own), dtype=bool)]
        assert row.frr == pytest.approx(float(np.mean(same < np.float32(0.7))), abs=1e-12)
    utilities = [row.utility or 0.0 for row in audit.worst]
    assert utilities == sorted(utilities)


@pytest.mark.parametrize("aggregate", ["nearest", "mean_of_class"])
def test_made_up_queries_against_a_gallery_that_lacks_some(aggregate: Any) -> None:
    items = make_clusters(0, classes=20, each=8)
    order = np.random.default_rng(0).permutation(len(items))
    gallery = items.subset(np.sort(order[:80]))
    gallery = gallery.select_classes(gallery.classes[:15])
    queries = items.subset(np.sort(order[80:]))
    audit = audit_threshold(queries, 0.55, gallery=gallery, aggregate=aggregate).audit
    if aggregate == "nearest":
        check_against_loop(audit, count_slowly(queries, 0.55, "similarity", gallery=gallery))
    else:
        similar = compute_all(queries, gallery)
        of_class = [similar[:, gallery.labels == name].mean(axis=1) for name in gallery.classes]
        means = np.stack(of_class, axis=1)
        known = np.isin(queries.labels, gallery.classes)
        expected = np.mean(means[~known].max(axis=1) >= 0.55)
        assert audit.fpir == pytest.approx(float(expected))
        assert (audit.far, audit.frr, audit.worst) == (None, None, [])
    assert audit.unknown_queries == int((~np.isin(queries.labels, gallery.classes)).sum())


def test_ties_at_the_threshold_are_accepted() -> None:
    vectors = np.array([[1, 0], [0.6, 0.8], [0, 1], [0.8, 0.6]], dtype=np.float32)
    items = EmbeddingSet.from_arrays(vectors, ["a", "a", "b", "b"])
    tied = float(compute_pair_similarities(items.vectors[:1], items.vectors[1:2])[0])
    for threshold, rejected in ((tied, 0.0), (float(np.nextafter(np.float32(tied), np.float32(2))), 1.0)):
        audit = audit_threshold(items, threshold).audit
        assert audit.frr == rejected
        assert audit.frr == count_slowly(items, threshold, "similarity")["frr"]
        assert audit.far_ci is None  # two classes give no interval, and no traceback
        assert audit.instead == {"far_1": None, "fpir_1": None}


def test_what_would_hold_one_per_cent_is_in_the_unit_of_the_question() -> None:
    items = make_clusters(1, classes=60, each=8)
    audit = audit_threshold(items, 0.4, "cosine").audit
    for key in ("far_1", "fpir_1"):
        other = audit.instead[key]
        assert other is not None
        assert convert_to_similarity(other.threshold, "cosine") == pytest.approx(other.similarity, abs=1e-6)
        assert other.rate is not None
        assert other.rate <= 0.011
    far = audit.instead["far_1"]
    assert far is not None
    rates = count_slowly(items, far.similarity, "similarity")
    assert far.rate == pytest.approx(rates["far"], rel=0.2)
    assert far.missed == pytest.approx(rates["frr"], rel=0.2)


def test_an_audited_threshold_is_a_point_chosen_by_hand(tmp_path: Path) -> None:
    items = make_clusters(2, classes=30)
    audited = audit_threshold(items, 0.5)
    for endpoint, kind in (("match", "fpir"), ("verify", "far")):
        point = audited.build_point(endpoint, "model")  # type: ignore[arg-type]
        assert (point.status, point.threshold, point.target.kind) == ("chosen", 0.5, kind)
        assert point.target.value == getattr(audited.audit, kind)
        assert point.proof is not None
        assert (point.proof.far, point.proof.fnir_ci) == (audited.audit.far, audited.audit.fnir_ci)
        point.save(tmp_path / "point.json")
        assert OperatingPoint.load(tmp_path / "point.json") == point
    never = audit_threshold(items, 0.9999).build_point("verify", "model")
    n = never.fit.n_impostor_pairs
    assert never.target.value == pytest.approx(1 - 0.05 ** (1 / n))  # nothing seen: what is still likely


@pytest.mark.parametrize(
    ("threshold", "distance", "sentence"),
    [
        (1.24, "similarity", "outside -1 to 1.*Is it a distance"),
        (-0.1, "cosine", "outside 0 to 2"),
        (2.5, "l2", "outside 0 to 2"),
        (float("nan"), "l2", "outside 0 to 2"),
    ],
)
def test_thresholds_that_no_distance_has_are_refused(
    threshold: float, distance: DistanceKind, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        convert_to_similarity(threshold, distance)


def test_a_distance_and_its_similarity_accept_the_same_pairs() -> None:
    rng = np.random.default_rng(0)
    similarities = np.concatenate([rng.uniform(-1, 1, 300), [1.0, 0.0, -1.0]]).astype(np.float32)
    distances: Sequence[DistanceKind] = ("cosine", "l2")
    for distance in distances:
        for threshold in (*rng.uniform(0, 2, 30), 0.0, 2.0):
            least = convert_to_similarity(float(threshold), distance)
            for similarity in similarities:
                assert (similarity >= np.float32(least)) == accept(float(similarity), threshold, distance)


def test_the_function_of_the_package_says_the_same() -> None:
    items = make_clusters(3, classes=25)
    sites = np.where(items.codes % 2, "north", "south")
    audit = limen.audit(items.vectors, items.labels, threshold=0.5, groups={"site": sites})
    own = audit_threshold(items, 0.5).audit
    assert (audit.far, audit.fpir_ci) == (own.far, own.fpir_ci)
    assert {group.value for group in audit.groups} == {"north", "south"}
    with pytest.raises(InputError, match="lengths from 3 to 3"):
        limen.audit(3 * items.vectors, items.labels, threshold=0.6, distance="l2")
    assert limen.audit(3 * items.vectors, items.labels, threshold=0.5).far == own.far
