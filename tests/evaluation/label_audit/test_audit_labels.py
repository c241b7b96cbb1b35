"""Swapped labels come first, whatever the order of the rows; copies, spellings and outliers are named."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from api_schemas.operating_point import Score
from common.array_types import Bools
from common.errors import InputError
from decision.scorer_registry import open_scorer
from embeddings.embedding_set import EmbeddingSet
from embeddings.hashes import hash_cohort
from evaluation.kernels.label_kernels import find_other_labels
from evaluation.label_audit.audit_files import COLUMNS, render_html, summarize, write_csv
from evaluation.label_audit.audit_labels import audit_labels
from evaluation.pairs.neighbours import find_neighbours


def make_items(seed: int = 0, classes: int = 30, each: int = 12) -> EmbeddingSet:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    vectors = rng.normal(size=(classes, 24))[labels] + 0.8 * rng.normal(size=(len(labels), 24))
    return EmbeddingSet.from_arrays(
        vectors, np.char.add("c", labels.astype(str)), np.char.add("i", np.arange(len(labels)).astype(str))
    )


def swap_labels(items: EmbeddingSet, fraction: float = 0.05, seed: int = 0) -> tuple[EmbeddingSet, Bools]:
    """The labels of some rows passed round among them, and which rows have another label now."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(items))[: round(fraction * len(items))]
    labels = items.labels.copy()
    labels[rows] = items.labels[np.roll(rows, 1)]
    return replace(items, labels=labels), labels != items.labels


def measure_precision(items: EmbeddingSet, fraction: float = 0.05) -> float:
    """Of the first findings, as many as there are swapped labels, how many are of swapped ones."""
    swapped, is_swapped = swap_labels(items, fraction)
    found = [finding.id for finding in audit_labels(swapped).findings[: int(is_swapped.sum())]]
    return float(np.isin(found, items.ids[is_swapped]).mean())


def test_swapped_labels_come_first() -> None:
    assert measure_precision(make_items()) >= 0.95


def test_swapped_intents_come_first(datasets: Path) -> None:
    """Sentence vectors of 150 intents, 40 each: the bar is 0.8."""
    with np.load(datasets / "clinc150" / "clinc150_minilm.npz") as archive:
        vectors, labels = archive["embeddings"].astype(np.float32), archive["labels"]
    rows = np.concatenate(
        [np.flatnonzero(labels == name)[:40] for name in np.unique(labels[labels != "oos"])]
    )
    assert measure_precision(EmbeddingSet.from_arrays(vectors[rows], labels[rows])) >= 0.9


def test_suggested_label_is_the_right_one() -> None:
    items = make_items()
    swapped, is_swapped = swap_labels(items)
    truth = dict(zip(items.ids.tolist(), items.labels.tolist(), strict=True))
    first = audit_labels(swapped).findings[: int(is_swapped.sum())]
    assert np.mean([finding.suggested_label == truth[finding.id] for finding in first]) >= 0.95
    for finding in first:
        assert finding.kinds == ["other_label_nearer"]
        assert finding.suspicion == pytest.approx(finding.other_similarity - finding.own_similarity)  # type: ignore[operator]
        assert f"'{finding.suggested_label}'" in finding.reason
        if finding.accepted:
            assert f"'{finding.nearest_id}', it would be accepted" in finding.reason


def test_margins_of_training_find_wrong_labels_that_were_learnt() -> None:
    items = make_items()
    is_wrong = np.zeros(len(items), dtype=bool)
    is_wrong[::40] = True  # in the end they lie with the items of the label that they were given
    margins = np.where(is_wrong, -0.9, 0.3).astype(np.float32)
    margins[1] = np.nan  # no item that it was trained on
    assert not any(one.id in items.ids[is_wrong] for one in audit_labels(items).findings[:3])
    order = np.random.default_rng(0).permutation(len(items))
    audit = audit_labels(items.subset(order), training_margins=margins[order])
    first = audit.findings[: int(is_wrong.sum())]
    assert {one.id for one in first} == set(items.ids[is_wrong].tolist())
    for finding in first:
        assert finding.training_margin == pytest.approx(-0.9)
        assert finding.other_similarity is not None
        assert finding.own_similarity is not None
        by_neighbours = finding.other_similarity - finding.own_similarity
        assert finding.suspicion == pytest.approx((by_neighbours + 0.9) / 2)
        assert "nearer to another class than to its own, by 0.900 on average" in finding.reason
    assert "training_margin" in write_csv(first).splitlines()[0]


def test_order_of_rows_changes_nothing() -> None:
    swapped, _ = swap_labels(make_items())
    order = np.random.default_rng(1).permutation(len(swapped))
    audits = [audit_labels(part) for part in (swapped, swapped.subset(order))]
    assert [one.findings for one in audits[:1]] == [one.findings for one in audits[1:]]
    assert audits[0].threshold == audits[1].threshold


def test_copies_spellings_outliers_and_lone_labels() -> None:
    items = make_items()
    far = np.zeros((1, 24))
    far[0, 0] = 1
    lone = items.vectors[:1] * 0.999 + 0.001 * far
    vectors = np.concatenate([items.vectors, items.vectors[5:6], -items.vectors.mean(axis=0)[None], lone])
    labels = [*items.labels.tolist()[:-1], "C0", "c3", "c4", "only one"]
    ids = [*items.ids.tolist(), "copy", "far away", "lone"]
    audit = audit_labels(EmbeddingSet.from_arrays(vectors, labels, ids), threshold=0.6, threshold_from="me")
    kinds = {finding.id: finding.kinds for finding in audit.findings}
    reasons = {finding.id: finding.reason for finding in audit.findings}
    assert "copy_of_other_label" in kinds["copy"]
    assert "copy_of_other_label" in kinds["i5"]
    assert "The same vector as 'i5', which is labelled 'c0'." in reasons["copy"]
    assert kinds["far away"][-1] == "outlier"
    assert "other_label_nearer" in kinds["lone"]
    assert "no other item has its own label" in reasons["lone"]
    assert audit.spellings == [["C0", "c0"]]
    assert audit.counts["copy_of_other_label"] == 2
    assert [finding.rank for finding in audit.findings] == list(range(1, len(audit.findings) + 1))
    assert any("'C0' = 'c0'" in sentence for sentence in summarize(audit))


def test_list_is_bounded_and_says_so() -> None:
    swapped, _ = swap_labels(make_items())
    whole, part = audit_labels(swapped), audit_labels(swapped, most=3)
    assert part.findings == whole.findings[:3]
    assert part.left_out == len(whole.findings) - 3
    assert part.counts == whole.counts


def test_density_score_decides_what_is_accepted() -> None:
    cohort = make_items(9).vectors
    score = Score(
        kind="density",
        form="csls",
        parameters={"neighbours": [5], "weights": [1.0], "slope": 1.0, "intercept": 0.0},
        cohort_sha256=hash_cohort(cohort),
    )
    scorer = open_scorer(score, cohort)
    swapped, _ = swap_labels(make_items())
    finding = audit_labels(swapped, threshold=0.1, scorer=scorer).findings[0]
    vectors = dict(zip(swapped.ids.tolist(), swapped.vectors, strict=True))
    a, b = vectors[finding.id][None], vectors[str(finding.nearest_id)][None]
    expected = scorer((a * b).sum(axis=1), scorer.compute_densities(a), scorer.compute_densities(b))
    assert finding.nearest_score == pytest.approx(float(expected[0]), abs=1e-5)
    assert finding.accepted == (finding.nearest_score >= 0.1)


def test_one_label_is_refused() -> None:
    with pytest.raises(InputError, match="at least two"):
        audit_labels(EmbeddingSet.from_arrays(np.eye(3), ["a"] * 3))


def test_nearest_other_label_is_that_of_a_plain_loop() -> None:
    items, _ = swap_labels(make_items(2, classes=8, each=4))
    n, sizes = len(items), np.bincount(items.codes)
    found = find_neighbours(items.vectors, n - 1)
    other, nearest = np.full((2, n), -1, dtype=np.int64)
    mean = np.full(n, np.nan)
    find_other_labels(found.rows, found.similarities, items.codes, sizes, 3, other, mean, nearest)
    similarities = items.vectors @ items.vectors.T
    for row in range(n):
        best = {
            code: np.sort(similarities[row, items.codes == code])[::-1][:3].mean()
            for code in range(len(sizes))
            if code != items.codes[row]
        }
        assert other[row] == max(best, key=lambda code: best[code])
        assert mean[row] == pytest.approx(best[other[row]], abs=1e-6)
        own_best = np.flatnonzero(items.codes == other[row])
        assert nearest[row] == own_best[similarities[row, own_best].argmax()]


def test_csv_holds_every_finding_and_no_formula() -> None:
    items = make_items()
    labels = items.labels.astype("<U20")
    labels[labels == "c3"] = "=1+1"
    swapped, _ = swap_labels(replace(items, labels=labels))
    audit = audit_labels(swapped)
    rows = list(csv.DictReader(io.StringIO(write_csv(audit.findings))))
    assert len(rows) == len(audit.findings)
    assert tuple(rows[0]) == COLUMNS
    assert [row["id"] for row in rows] == [finding.id for finding in audit.findings]
    assert not any(value.startswith("=") for row in rows for value in row.values())
    assert any(value == "'=1+1" for row in rows for value in row.values())


def test_page_shows_hostile_labels_as_text_and_pictures() -> None:
    items = make_items()
    labels = items.labels.astype("<U40")
    labels[labels == "c3"] = "<img src=x onerror=alert(1)>"
    swapped, _ = swap_labels(replace(items, labels=labels))
    page = render_html(audit_labels(swapped), lambda item_id: b"RIFF" if item_id == "i1" else None)
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page
    assert "<script" not in page
