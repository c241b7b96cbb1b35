"""``limen evaluate --threshold``: an audit on the console, in the report, and as an operating point."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from decision.operating_point_files import read_point
from embeddings.embedding_set import EmbeddingSet
from embeddings.files import save_embeddings
from tests.limen.conftest import Limen, make_classes


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    """Thirty classes at two sites."""
    items = make_classes(30, 6)
    sites = np.where(items.codes % 2, "north", "south")
    given = EmbeddingSet.from_arrays(items.vectors, items.labels, metadata={"site": sites})
    save_embeddings(given, tmp_path / "vectors.npz")
    return tmp_path / "vectors.npz"


def test_an_audit_is_printed_and_reported_and_made_a_point_that_exports(
    limen: Limen, vectors: Path, tmp_path: Path
) -> None:
    asked = ("evaluate", vectors, "--threshold", 0.5, "--distance", "cosine", "--group", "site")
    outcome = limen(*asked, "--decides", "match", "--out", tmp_path / "new" / "own.json", "--model", "mine")
    assert outcome.code == 0, outcome.err
    for part in ("cosine distance <= 0.5", "FPIR", "Instead", "site = north", "as the gallery grows"):
        assert part in outcome.out
    assert "chosen by hand" in outcome.err
    point = read_point(tmp_path / "new" / "own.json").point
    assert (point.status, point.target.kind, point.threshold) == ("chosen", "fpir", 0.5)
    report = json.loads(limen(*asked, "--json").out)
    assert report["schema_version"] == 2
    assert report["audit"]["fpir"] == point.target.value
    assert {group["value"] for group in report["groups"]} == {"north", "south"}
    assert report["identification"]["fpir_by_gallery"]
    folder = limen(*asked, "--out", tmp_path / "report")
    assert folder.code == 0, folder.err
    assert "The threshold cosine distance" in (tmp_path / "report" / "report.html").read_text()


def test_an_operating_point_tells_how_sure_its_answers_are(
    limen: Limen, vectors: Path, tmp_path: Path
) -> None:
    point = tmp_path / "point.json"
    made = limen("calibrate", vectors, "--target-fpir", 0.1, "--aggregate", "nearest", "--out", point)
    assert made.code == 0, made.err
    report = json.loads(limen("evaluate", vectors, "--operating-point", point, "--json").out)
    answer = report["answer"]
    assert answer["operating_point"] == read_point(point).point.id
    assert 0 <= answer["ece"] <= 0.2
    assert report["identification"]["fpir_by_gallery"][0]["classes"] == 10
    assert len(answer["reliability"]["predicted"]) == len(answer["reliability"]["observed"])


def test_evidence_says_nothing_about_the_classes_it_was_fitted_on(
    limen: Limen, vectors: Path, tmp_path: Path
) -> None:
    point = tmp_path / "point.json"
    made = limen("calibrate", vectors, "--target-fpir", 0.1, "--aggregate", "evidence", "--out", point)
    assert made.code == 0, made.err
    report = json.loads(limen("evaluate", vectors, "--operating-point", point, "--json").out)
    assert report["answer"] is None
    assert any("was fitted on these classes" in reason for reason in report["reasons"])
    other = make_classes(30, 6, seed=5)
    save_embeddings(other, tmp_path / "other.npz")
    report = json.loads(limen("evaluate", tmp_path / "other.npz", "--operating-point", point, "--json").out)
    assert report["answer"]["classes"] == 29  # one is left out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--distance", "l2"), "--distance goes with --threshold"),
        (("--decides", "match"), "--decides goes with --threshold"),
        (("--out", "x.json"), "goes with --threshold"),
        (("--threshold", "1.5"), "outside -1 to 1"),
        (("--threshold", "0.5", "--distance", "euclid"), "similarity, cosine, l2, found 'euclid'"),
        (("--threshold", "0.5", "--decides", "search"), "verify or match, found 'search'"),
        (("--group", "colour"), "no column 'colour' to group by; the data has: site"),
    ],
)
def test_what_cannot_be_audited_is_a_sentence(
    limen: Limen, vectors: Path, options: tuple[str, ...], sentence: str
) -> None:
    outcome = limen("evaluate", vectors, *options)
    assert outcome.code == 2
    assert sentence in outcome.err
    assert "Traceback" not in outcome.err
