"""Commands for a model that follows another, keeps its gallery, or comes in several sizes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from api_schemas.report import Report
from embeddings.files import open_embeddings, read_embeddings, save_embeddings
from index.bundle import read_bundle, read_manifest, verify_bundle
from tests.limen.conftest import Limen, make_classes, run_limen

HEAD = """
name: {name}
data: {{kind: embeddings, path: vectors.npz}}
model: {{backbone: linear, embedding_dim: 16}}
schedule: {{epochs: 1, steps_per_epoch: 20, patience: null}}
"""
CHEAP = ("--set", "calibration.score=cosine", "--set", "calibration.targets={far: 0.01, fpir: 0.1}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors, an old model's bundle, and a new run that followed it."""
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        save_embeddings(make_classes(100, 5), Path("vectors.npz"))
        Path("old.yaml").write_text(HEAD.format(name="old"))
        losses = "loss: [multi_similarity, {name: higher_order_compatibility, weight: 9}]"
        follow = f"{losses}\nteacher: {{bundle: old}}\n"
        Path("new.yaml").write_text(HEAD.format(name="new") + "seed: 3\n" + follow)
        Path("sizes.yaml").write_text(HEAD.format(name="sizes").replace("16}", "16, sizes: [4, 8]}"))
        assert run_limen("train", "old.yaml").code == 0
        assert run_limen("export", *CHEAP, "runs/old", "--out", "old").code == 0
        outcome = run_limen("train", "new.yaml")
        assert outcome.code == 0, outcome.err
        (folder / "train.txt").write_text(outcome.err)
    return folder


def test_the_student_stands_beside_its_teacher(
    limen: Limen, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(folder)
    text = (folder / "train.txt").read_text()
    assert "The teacher (first) and the student, on the items measured:" in text
    assert "  fnir  " in text
    outcome = limen("evaluate", "runs/new", "--out", tmp_path / "report")
    assert "Beside the teacher" in outcome.out
    rows = {row.name: row for row in Report.load(tmp_path / "report" / "report.json").beside_teacher}
    assert {"recall_at_1", "frr", "fnir", "eer"} <= rows.keys()
    assert "Beside the teacher" in (tmp_path / "report" / "report.html").read_text()
    old, teacher = (
        read_embeddings(Path(f"runs/{name}.npz"))
        for name in ("old/embeddings/test", "new/embeddings/teacher")
    )
    np.testing.assert_allclose(teacher.vectors, old.vectors, atol=1e-5)


def test_a_new_model_serves_the_gallery_of_an_old_one(
    limen: Limen, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(folder)
    outcome = limen("export", *CHEAP, "runs/new", "--gallery-of", "old", "--out", tmp_path / "kept")
    assert outcome.code == 0, outcome.err
    assert "The gallery of old is kept: 500 items of 100 classes" in outcome.err
    old, kept = read_manifest(Path("old")), read_manifest(tmp_path / "kept")
    assert kept.gallery_model_hash == old.model_hash != kept.model_hash
    vectors = [
        open_embeddings(path / "vectors.npy", path / "items.parquet").read()
        for path in (Path("old"), tmp_path / "kept")
    ]
    np.testing.assert_array_equal(vectors[0].vectors, vectors[1].vectors)
    verify_bundle(tmp_path / "kept")
    bundle = read_bundle(tmp_path / "kept")
    far = next(
        point for point in bundle.points.values() if point.target.kind == "far" and point.target.value == 0.01
    )
    new, before = (read_embeddings(Path(f"runs/{name}/embeddings/test.npz")) for name in ("new", "old"))
    scores = (new.vectors @ before.vectors.T)[new.labels[:, None] != before.labels[None, :]]
    assert (scores >= far.threshold).mean() == pytest.approx(0.01, abs=0.01)
    report = Report.load(tmp_path / "kept" / "report.json")
    assert "Queries by this model, the gallery by the older one" in report.reasons[0]
    refused = limen(
        "export", *CHEAP, "runs/new", "--gallery-of", "old", "--group", "site", "--out", tmp_path / "other"
    )
    assert refused.code == 2
    assert "--group: does not go with --gallery-of" in refused.err


def test_the_old_encoder_embeds_what_its_gallery_lacks(
    limen: Limen, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(folder)
    train = read_embeddings(Path("runs/old/embeddings/train.npz"))
    save_embeddings(train, tmp_path / "part.npz")
    part = tmp_path / "part"
    assert limen("export", *CHEAP, "runs/old", "--gallery", tmp_path / "part.npz", "--out", part).code == 0
    outcome = limen("export", *CHEAP, "runs/new", "--gallery-of", part, "--out", tmp_path / "kept")
    assert outcome.code == 0, outcome.err
    assert read_manifest(tmp_path / "kept").counts.items == len(train)
    whole = limen("export", *CHEAP, "runs/new", "--gallery-of", "old", "--out", tmp_path / "whole")
    assert whole.code == 0
    thresholds = [
        {
            point.name: point.threshold
            for point in read_bundle(tmp_path / name).points.values()
            if point.target.kind == "far"
        }
        for name in ("kept", "whole")
    ]
    assert thresholds[0] == pytest.approx(thresholds[1], abs=1e-5)


def test_compare_says_what_a_search_at_the_old_threshold_does(
    limen: Limen, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(folder)
    outcome = limen("compare", "runs/old", "runs/new", "--out", tmp_path / "comparison.json")
    assert "New queries against the old gallery: recall@1" in outcome.out
    assert "A search at the old threshold" in outcome.out
    found = json.loads((tmp_path / "comparison.json").read_text())
    old, new = (read_embeddings(Path(f"runs/{name}/embeddings/test.npz")) for name in ("old", "new"))
    threshold = np.float32(found["flips"]["threshold_a"])
    same = old.labels[:, None] == old.labels[None, :]
    for name, queries in (("old_old", old), ("new_old", new)):
        scores = (queries.vectors.astype(np.float64) @ old.vectors.astype(np.float64).T).astype(np.float32)
        np.fill_diagonal(scores, -np.inf)
        own = np.where(same, scores, -np.inf).max(axis=1)
        other = np.where(same, -np.inf, scores).max(axis=1)
        figures = found["compatibility"]
        assert figures[f"fpir_{name}"] == pytest.approx((other >= threshold).mean())
        missed = 1 - ((own >= threshold) & (own > other)).mean()
        assert figures[f"fnir_{name}"] == pytest.approx(missed)


def test_each_size_has_a_bundle_with_points_of_its_own(
    limen: Limen, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(folder)
    trained = limen("train", "sizes.yaml", "--out", tmp_path / "run")
    assert trained.code == 0
    assert "--size N --out BUNDLE makes a bundle for N in [4, 8]" in trained.err
    for size in (4, 16):
        outcome = limen("export", *CHEAP, tmp_path / "run", "--size", size, "--out", tmp_path / str(size))
        assert outcome.code == 0, outcome.err
    small, whole = (read_bundle(tmp_path / str(size)) for size in (4, 16))
    assert (small.manifest.embedding_dim, whole.manifest.embedding_dim) == (4, 16)
    assert small.manifest.model_hash != whole.manifest.model_hash
    assert {point.model_hash for point in small.points.values()} == {small.manifest.model_hash}
    refused = limen("export", *CHEAP, tmp_path / "run", "--size", 5, "--out", tmp_path / "5")
    assert "was trained for 4, 8, 16" in refused.err


def test_a_learning_rate_is_suggested_and_no_run_is_left(
    limen: Limen, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(folder)
    outcome = limen("train", "old.yaml", "--find-lr", "--out", tmp_path / "rates")
    assert outcome.code == 0, outcome.err
    assert "try --set optimizer.lr=" in outcome.err
    assert [path.name for path in (tmp_path / "rates").iterdir()] == ["learning_rate.png"]
    assert (tmp_path / "rates" / "learning_rate.png").read_bytes()[:4] == b"\x89PNG"
