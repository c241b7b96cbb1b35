"""``limen data audit``: what it prints and writes, of embeddings, of a bundle, and through Python."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import limen as package
from api_schemas.label_audit import LabelAudit
from embeddings.embedding_set import EmbeddingSet
from embeddings.files import save_embeddings
from tests.limen.conftest import Limen, make_classes


@pytest.fixture
def swapped() -> EmbeddingSet:
    """40 classes of 8 in which the first two items have each other's label."""
    items = make_classes(40, 8)
    labels = items.labels.copy()
    labels[[0, 8]] = items.labels[[8, 0]]
    return replace(items, labels=labels)


def test_embeddings_file(limen: Limen, swapped: EmbeddingSet, tmp_path: Path) -> None:
    save_embeddings(swapped, tmp_path / "items.npz")
    files = [tmp_path / f"audit.{suffix}" for suffix in ("csv", "html", "json")]
    options = [option for file in files for option in ("--out", file)]
    outcome = limen("data", "audit", tmp_path / "items.npz", *options)
    assert outcome.code == 0, outcome.err
    assert "320 items of 40 labels. To look at: 2 nearer to another label." in outcome.out
    assert "1 % of the pairs of two labels" in outcome.out
    with files[0].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["id"] for row in rows} == {"0", "8"}
    assert {row["id"]: row["suggested_label"] for row in rows} == {"0": "0", "8": "1"}
    assert "Labels to look at" in files[1].read_text()
    audit = LabelAudit.load(files[2])
    expected = package.audit_labels(swapped.vectors, swapped.labels)
    assert audit.findings == expected.findings
    assert audit.counts["other_label_nearer"] == 2


def test_bundle_gives_items_and_threshold(limen: Limen, swapped: EmbeddingSet, tmp_path: Path) -> None:
    save_embeddings(swapped, tmp_path / "items.npz")
    built = limen("build", tmp_path / "items.npz", "--out", tmp_path / "bundle", "--target-far", 0.01)
    assert built.code == 0, built.err
    of_bundle = limen("data", "audit", tmp_path / "bundle")
    assert of_bundle.code == 0, of_bundle.err
    assert "the operating point" in of_bundle.out
    of_file = limen("data", "audit", tmp_path / "items.npz", "--bundle", tmp_path / "bundle")
    assert of_file.out == of_bundle.out
    save_embeddings(make_classes(5, 4, dim=8), tmp_path / "short.npz")
    refused = limen("data", "audit", tmp_path / "short.npz", "--bundle", tmp_path / "bundle")
    assert refused.code == 2
    assert "32 numbers" in refused.err


def test_bad_input_is_one_sentence(limen: Limen, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    raw = limen("data", "audit", tmp_path / "photos")
    assert raw.code == 2
    assert "give --run or --bundle" in raw.err
    save_embeddings(make_classes(3, 4), tmp_path / "items.npz")
    suffix = limen("data", "audit", tmp_path / "items.npz", "--out", tmp_path / "audit.xlsx")
    assert suffix.code == 2
    assert ".csv, .html, .json" in suffix.err
    one = EmbeddingSet.from_arrays(np.eye(3, 4), ["a"] * 3)
    save_embeddings(one, tmp_path / "one.npz")
    assert "at least two" in limen("data", "audit", tmp_path / "one.npz").err
