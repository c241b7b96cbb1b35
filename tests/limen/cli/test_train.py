"""Commands around a training run: the check before it, the run itself, more data embedded after it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from api_schemas.label_audit import LabelAudit
from common import console
from embeddings.files import read_embeddings, save_embeddings
from tests.limen.conftest import Limen, make_classes

HEAD = """
name: head
data: {kind: embeddings, path: vectors.npz}
model: {backbone: linear, embedding_dim: 8}
schedule: {epochs: 2}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with vectors and a configuration to train a head on them."""
    monkeypatch.chdir(tmp_path)
    save_embeddings(make_classes(60, 8), Path("vectors.npz"))
    save_embeddings(make_classes(10, 8, seed=1), Path("others.npz"))
    Path("head.yaml").write_text(HEAD)
    return tmp_path


def test_an_epoch_is_one_line_with_opis_beside_recall(limen: Limen, folder: Path) -> None:
    outcome = limen("train", "head.yaml")
    assert outcome.code == 0
    epochs = [line for line in outcome.err.splitlines() if line.startswith("epoch ")]
    assert len(epochs) == 2
    for line in epochs:
        assert line.index("recall@1") < line.index("OPIS") < line.index("items/s")
    assert "Run in runs/head. Next: limen evaluate runs/head" in outcome.err


def test_lines_say_what_a_bar_would(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", 0.0)
    bar = console.track([1, 2, 3], "epoch 1")
    for step in bar:
        bar.set_postfix_str(f"loss {step / 10}, 9 items/s", refresh=False)  # type: ignore[attr-defined]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "epoch 1: 0 of 3, 0.0/s"
    assert lines[2].startswith("epoch 1: 2 of 3, ")
    assert lines[2].endswith(" s left, loss 0.2, 9 items/s")


def test_a_run_that_is_finished_says_so_when_it_is_resumed(limen: Limen, folder: Path) -> None:
    assert "already holds a run: add --resume" not in limen("train", "head.yaml").err
    assert "already holds a run: add --resume" in limen("train", "head.yaml").err
    before = Path("runs/head/embeddings/test.npz").read_bytes()
    outcome = limen("train", "head.yaml", "--resume")
    assert outcome.code == 0
    assert "finished after epoch 2" in outcome.err
    assert Path("runs/head/embeddings/test.npz").read_bytes() == before


def test_more_data_is_embedded_by_a_run(limen: Limen, folder: Path) -> None:
    assert limen("train", "head.yaml").code == 0
    refused = limen("evaluate", "runs/head", "--unknown", "others.npz")
    assert refused.code == 2
    assert "others.npz has vectors of 32 numbers, runs/head of 8: `limen embed RUN DATA" in refused.err
    assert limen("embed", "runs/head", "others.npz", "--out", "unknown.npz").code == 0
    unknown, raw = read_embeddings(Path("unknown.npz")), read_embeddings(Path("others.npz"))
    assert unknown.vectors.shape == (80, 8)
    np.testing.assert_array_equal(unknown.labels, raw.labels)
    limen("embed", "runs/head", "vectors.npz", "--out", "again.npz")
    stored, again = (read_embeddings(Path(name)) for name in ("runs/head/embeddings/test.npz", "again.npz"))
    rows = [again.ids.tolist().index(item_id) for item_id in stored.ids]
    np.testing.assert_allclose(again.vectors[rows], stored.vectors, atol=1e-6)
    with np.load("unknown.npz") as arrays:
        unknown = {**arrays, "labels": np.char.add("unknown ", arrays["labels"])}
    np.savez("unknown.npz", **unknown)
    report = json.loads(limen("evaluate", "runs/head", "--unknown", "unknown.npz", "--json").out)
    assert report["identification"]["unknown_queries"] == 80
    assert "written as .npz" in limen("embed", "runs/head", "others.npz", "--out", "unknown.csv").err


def test_images_are_embedded_by_the_rule_of_the_run(limen: Limen, folder: Path) -> None:
    random = np.random.default_rng(0)
    for label in range(16):
        (folder / "photos" / f"{label}").mkdir(parents=True)
        for number in range(4):
            pixels = random.integers(0, 256, (12, 12), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / f"{label}" / f"{number}.png")
    (folder / "photos" / "0" / "broken.png").write_bytes(b"no image")
    quick = ("--set", "schedule.epochs=1", "--set", "model.widths=[4]", "--set", "data.broken=skip")
    Path("photos.yaml").write_text("name: photos\ndata: {path: photos}\n")
    assert limen("train", "photos.yaml", *quick).code == 0
    said = limen("embed", "runs/photos", "photos", "--out", "all.npz").err
    assert "Skipped 1 broken images: 0/broken.png" in said
    assert "64 items of 16 labels in all.npz" in said
    stored, again = (read_embeddings(Path(name)) for name in ("runs/photos/embeddings/test.npz", "all.npz"))
    rows = [again.ids.tolist().index(item_id) for item_id in stored.ids]
    np.testing.assert_allclose(again.vectors[rows], stored.vectors, atol=1e-5)
    (folder / "bad" / "x").mkdir(parents=True)
    (folder / "bad" / "x" / "broken.png").write_bytes(b"no image")
    refusal = limen("embed", "runs/photos", "bad", "--out", "none.npz").err
    assert "x/broken.png" in refusal
    assert "bad: every image is broken, e.g. x/broken.png: " in refusal


@pytest.mark.parametrize("name", ["vectors.npz", "head.yaml"])
def test_data_is_checked_with_a_configuration_or_alone(limen: Limen, folder: Path, name: str) -> None:
    outcome = limen("data", "check", name)
    assert outcome.code == 0
    assert outcome.out.startswith("train 288 items of 36 classes; validation 96 items of 12 classes")
    assert "train: 8 items in every class." in outcome.out


def test_a_folder_can_be_checked_but_is_no_configuration(limen: Limen, folder: Path) -> None:
    (folder / "photos").mkdir()
    assert "photos holds no images: expected a folder per class" in limen("data", "check", "photos").err
    assert "photos is a folder, expected a YAML file" in limen("train", "photos").err


def test_a_run_that_starts_from_another_is_compared_with_it(limen: Limen, folder: Path) -> None:
    assert limen("train", "head.yaml").code == 0
    outcome = limen("train", "head.yaml", "--from", "runs/head", "--out", "runs/next")
    assert outcome.code == 0
    assert "Beside runs/head, on the items measured:" in outcome.err
    assert "recall_at_1" in outcome.err
    assert "was trained on" not in outcome.err, "the same split keeps the test classes apart"
    assert "limen export runs/next --out BUNDLES/VERSION" in outcome.err
    other = limen(
        "train", "head.yaml", "--from", "runs/head", "--set", "data.split.seed=1", "--out", "runs/x"
    )
    assert "runs/head was trained on " in other.err
    assert "which favours it" in other.err
    assert "is not a run folder" in limen("train", "head.yaml", "--from", "runs/none", "--out", "runs/y").err


def test_the_audit_of_a_run_knows_how_items_were_learnt(limen: Limen, folder: Path) -> None:
    items = read_embeddings(Path("vectors.npz"))
    labels = items.labels.copy()
    labels[::8] = np.roll(labels[::8], 1)  # of one item in each class
    save_embeddings(replace(items, labels=labels), Path("vectors.npz"))
    assert limen("train", "head.yaml").code == 0
    assert limen("data", "audit", "runs/head", "--out", "audit.json").code == 0
    train = read_embeddings(Path("runs/head/embeddings/train.npz")).ids
    findings = LabelAudit.load(Path("audit.json")).findings
    assert any(finding.training_margin is not None for finding in findings if finding.id in train)
    assert {finding.training_margin is None for finding in findings if finding.id not in train} == {True}
    Path("runs/head/embeddings/train_margins.npy").unlink()  # as runs of earlier versions
    assert limen("data", "audit", "runs/head", "--out", "audit.json").code == 0
    assert all(finding.training_margin is None for finding in LabelAudit.load(Path("audit.json")).findings)
