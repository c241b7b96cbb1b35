"""What ``--fold-labels`` and ``--unknown-label`` do, and that faults of labels are named."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import InputError
from common.label_spelling import find_unknown_labels, group_spellings
from embeddings.embedding_set import EmbeddingSet
from embeddings.files import save_embeddings
from limen.cli.main import main
from limen.pipeline.evaluation_source import EvaluationSource
from limen.pipeline.label_options import apply_label_options, split_unknown


def make_items(labels: list[str], seed: int = 0, spread: float = 0.3) -> EmbeddingSet:
    """Items around one centre a folded label."""
    draw = np.random.default_rng(seed)
    folded = np.unique(
        [" ".join(label.casefold().replace("e\u0301", "\xe9").split()) for label in labels],
        return_inverse=True,
    )[1]
    centres = np.random.default_rng(1).normal(size=(50, 16))[folded]
    return EmbeddingSet.from_arrays(
        centres + spread * draw.normal(size=centres.shape),
        labels,
        [f"i{seed}-{k}" for k in range(len(labels))],
    )


def run(*arguments: Any, code: int = 0) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["limen", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    assert (ended.value.code or 0) == code


def test_labels_that_spelling_alone_tells_apart() -> None:
    labels = [
        "Caf\xe9",
        "Cafe\u0301",
        "caf\xe9 ",
        "tea",
        "Tea",
        "STRASSE",
        "stra\xdfe",
        "ice  tea",
        "ice tea",
        "x",
        "y",
    ]
    assert group_spellings(labels) == [
        ["Cafe\u0301", "Caf\xe9", "caf\xe9 "],
        ["STRASSE", "stra\xdfe"],
        ["Tea", "tea"],
        ["ice  tea", "ice tea"],
    ]


@pytest.mark.parametrize(
    "label",
    [
        "unknown",
        "Unknown",
        "UNK",
        "oos",
        "out_of_scope",
        "out-of-scope",
        "-1",
        "other",
        "Others",
        "distractor",
        "distractors",
        "none",
        "nan",
        "N/A",
        "background",
        "<unk>",
        "no match",
        "junk",
    ],
)
def test_labels_of_no_identity_are_recognised(label: str) -> None:
    assert find_unknown_labels([label]) == [label]


@pytest.mark.parametrize(
    "label", ["1", "0", "another", "Norway", "unknown soldier", "mother", "nancy", "-12", "oosterhout"]
)
def test_labels_of_identities_are_not_asked_about(label: str) -> None:
    assert find_unknown_labels([label]) == []


def test_folding_takes_the_most_frequent_spelling_in_all_sets_alike() -> None:
    items = make_items(["Tea"] * 3 + ["tea"] * 2 + ["coffee"] * 2)
    source = EvaluationSource(items, "m", "test", make_items(["TEA", "milk"], 1), None)
    folded, unknown, gallery = apply_label_options(
        source, fold=True, gallery=make_items(["tea ", "Coffee"], 2)
    )
    assert folded.items.labels.tolist() == ["Tea"] * 5 + ["coffee"] * 2
    assert folded.validation is not None
    assert folded.validation.labels.tolist() == ["Tea", "milk"]
    assert gallery is not None
    assert gallery.labels.tolist() == ["Tea", "coffee"]
    assert unknown is None
    assert folded.items.vectors is items.vectors


def test_unknown_labels_become_queries() -> None:
    items = make_items(["a", "a", "oos", "b", "b", "oos", "-1"])
    source = EvaluationSource(items, "m", "all")
    kept, unknown, _ = apply_label_options(source, unknown_labels=["oos", "-1"], unknown=make_items(["?"], 3))
    assert kept.items.labels.tolist() == ["a", "a", "b", "b"]
    assert unknown is not None
    assert sorted(unknown.labels.tolist()) == ["-1", "?", "oos", "oos"]
    known, taken = split_unknown(items, ["oos"])
    assert (len(known), None if taken is None else len(taken)) == (5, 2)
    with pytest.raises(InputError, match="--unknown-label OOS: no item has this label; did you mean 'oos'"):
        split_unknown(items, ["OOS"])
    with pytest.raises(InputError, match="every item is labelled a or b"):
        split_unknown(make_items(["a", "b"]), ["a", "b"])


def test_evaluate_names_such_labels_and_takes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"person {k}" for k in range(12)]
    spelt = [*names * 4, *(name.upper() for name in names * 2)]
    items = make_items(spelt)
    strangers = np.random.default_rng(5).normal(size=(40, 16))
    data = EmbeddingSet.from_arrays(
        np.concatenate([items.vectors, strangers]), [*spelt, *["oos"] * 40], [f"i{k}" for k in range(112)]
    )
    save_embeddings(data, tmp_path / "data.npz")
    run("evaluate", tmp_path / "data.npz", "--json")
    plain = json.loads(capsys.readouterr().out)
    reasons = " ".join(plain["reasons"])
    assert "'PERSON 0' = 'person 0'" in reasons
    assert "--fold-labels" in reasons
    assert "Is 'oos' an identity?" in reasons
    run("evaluate", tmp_path / "data.npz", "--json", "--fold-labels", "--unknown-label", "oos")
    mended = json.loads(capsys.readouterr().out)
    assert mended["counts"]["classes"] == 12
    assert mended["identification"]["unknown_queries"] == 40
    assert mended["verification"]["eer"] < 0.02 < plain["verification"]["eer"]
    assert mended["retrieval"]["recall_at_1"] > plain["retrieval"]["recall_at_1"]
    assert not any("--fold-labels" in reason or "identity?" in reason for reason in mended["reasons"])
    run("evaluate", tmp_path / "data.npz", "--unknown-label", "oops", code=2)
    assert "no item has this label" in capsys.readouterr().err


def test_copies_under_two_labels_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = make_items([f"p{k}" for k in range(12)] * 5)
    draw = np.random.default_rng(0)
    near = items.vectors[7] + 0.002 * draw.normal(size=16)
    data = EmbeddingSet.from_arrays(
        np.concatenate([items.vectors, items.vectors[[3]], near[None]]),
        [*items.labels, "p9", "p1"],
        [*items.ids, "copy", "almost"],
    )
    save_embeddings(data, tmp_path / "data.npz")
    run("evaluate", tmp_path / "data.npz", "--json")
    reasons = " ".join(json.loads(capsys.readouterr().out)["reasons"])
    assert "2 items are copies under two labels" in reasons
    assert "'copy' (p9) = 'i0-3' (p3)" in reasons
    assert "2 items are near copies under two labels" in reasons
    assert "'almost' (p1) = 'i0-7' (p7)" in reasons
    save_embeddings(items, tmp_path / "clean.npz")
    run("evaluate", tmp_path / "clean.npz", "--json")
    assert "copies" not in " ".join(json.loads(capsys.readouterr().out)["reasons"])


def test_build_names_faults_of_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"person {k}" for k in range(24)]
    items = make_items([*names * 5, *(name.upper() for name in names)])
    copied = EmbeddingSet.from_arrays(
        np.concatenate([items.vectors, items.vectors[[3]]]), [*items.labels, "person 9"], [*items.ids, "copy"]
    )
    save_embeddings(copied, tmp_path / "data.npz")
    run("build", tmp_path / "data.npz", "--out", tmp_path / "bundle")
    said = capsys.readouterr().err
    assert "48 labels differ from another one in case, blanks, invisible characters or Unicode form" in said
    assert "2 items are copies under two labels" in said
    assert "'copy' (person 9) = 'i0-3' (person 3)" in said


def test_calibrate_names_copies_under_two_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = make_items([f"p{k}" for k in range(30)] * 5)
    copied = EmbeddingSet.from_arrays(
        np.concatenate([items.vectors, items.vectors[[3]]]), [*items.labels, "p9"], [*items.ids, "copy"]
    )
    save_embeddings(copied, tmp_path / "data.npz")
    run("calibrate", tmp_path / "data.npz", "--target-far", "0.05", "--out", tmp_path / "point.json")
    assert "'copy' (p9) = 'i0-3' (p3)" in capsys.readouterr().err
    first = json.loads((tmp_path / "point.json").read_text())
    order = np.random.default_rng(0).permutation(len(copied))
    save_embeddings(copied.subset(order), tmp_path / "shuffled.npz")
    run("calibrate", tmp_path / "shuffled.npz", "--target-far", "0.05", "--out", tmp_path / "again.json")
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["threshold"] == first["threshold"]
    for part in ("fit", "proof"):
        for document in (first, again):
            document[part].pop("data_hash", None)
        assert again[part] == first[part]
