"""The commands do their job on good input."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from api_schemas.operating_point import OperatingPoint
from api_schemas.report import Report
from common.errors import InputError
from decision.operating_point_files import get_cohort_path, read_point
from embeddings.embedding_set import EmbeddingSet
from embeddings.files import read_embeddings, save_embeddings
from embeddings.similarity import compute_pair_similarities
from limen import calibrate, open_bundle
from limen.pipeline.evaluation_source import open_source
from tests.limen.conftest import Limen, make_classes


def test_evaluate_prints_the_report_alone_with_json(limen: Limen, tmp_path: Path) -> None:
    degrees = np.deg2rad([0, 10, 20, 50, 80, 110, 130, 135, 190])  # methods-core, section 1.6
    points = np.stack([np.cos(degrees), np.sin(degrees)], axis=1)
    save_embeddings(EmbeddingSet.from_arrays(points, np.repeat([0, 1, 2], 3)), tmp_path / "nine.npz")
    outcome = limen("evaluate", tmp_path / "nine.npz", "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out)["consistency"]["opis"] == pytest.approx(0.115063, abs=1e-6)


def test_evaluate_writes_report_page_and_plots(
    limen: Limen, embeddings_file: Path, far_point: Path, tmp_path: Path
) -> None:
    outcome = limen("evaluate", embeddings_file, "--operating-point", far_point, "--out", tmp_path / "report")
    assert outcome.code == 0
    page = (tmp_path / "report" / "report.html").read_text()
    assert "far-5%" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert list((tmp_path / "report").glob("*.png"))


def test_the_point_does_on_its_pairs_what_it_says(
    limen: Limen, embeddings_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "far.json"
    assert (
        limen("calibrate", embeddings_file, "--target-far", 0.02, "--score", "cosine", "--out", out).code == 0
    )
    point = OperatingPoint.load(out)
    items = read_embeddings(embeddings_file)
    i, j = np.triu_indices(len(items), 1)
    accepted = compute_pair_similarities(items.vectors[i], items.vectors[j]) >= np.float32(point.threshold)
    impostor = items.codes[i] != items.codes[j]
    assert point.fit.far == pytest.approx(accepted[impostor].mean(), abs=1e-12)
    assert point.fit.frr == pytest.approx(1 - accepted[~impostor].mean(), abs=1e-12)
    assert point.fit.far_upper is not None
    assert point.fit.far <= point.fit.far_upper <= 0.02


@pytest.mark.parametrize("flags", [["--eer"], ["--target-far", 0.05]], ids=["one threshold", "a rung"])
def test_a_point_takes_what_the_loss_learned_of_matches(
    limen: Limen, embeddings_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[object]
) -> None:
    """Nearly what is best on all pairs, which no fit without a fold of the classes comes near."""
    arguments = ["calibrate", embeddings_file, *flags, "--score", "cosine", "--out", tmp_path / "point.json"]
    assert limen(*arguments).code == 0
    fitted = OperatingPoint.load(tmp_path / "point.json").probability
    assert fitted is not None
    near = {
        name: value if name == "scores" else (1.001 * np.array(value)).tolist()
        for name, value in fitted.parameters.items()
    }
    learned = fitted.model_copy(update={"parameters": near})
    opened = replace(open_source(embeddings_file), match_probability=learned)
    monkeypatch.setattr("limen.pipeline.evaluation_source.open_source", lambda *_: opened)
    assert limen(*arguments).code == 0
    assert OperatingPoint.load(tmp_path / "point.json").probability == learned != fitted


@pytest.mark.parametrize(
    ("flags", "keywords"),
    [
        (["--target-fpir", "0.1"], None),
        (["--target-frr", "0.1"], None),
        (["--eer"], {"eer": True}),
        (["--cost", "5,1,0.1"], {"cost": (5.0, 1.0, 0.1)}),
    ],
)
def test_every_target_gives_a_point_and_python_chooses_the_same(
    limen: Limen, embeddings_file: Path, tmp_path: Path, flags: list[str], keywords: dict[str, Any] | None
) -> None:
    outcome = limen("calibrate", embeddings_file, *flags, "--out", tmp_path / "op.json")
    assert outcome.code == 0, outcome.err
    point = OperatingPoint.load(tmp_path / "op.json")
    assert point.target.kind == flags[0].removeprefix("--target-").strip("-")
    if keywords is not None:
        items = read_embeddings(embeddings_file)
        assert calibrate(items.vectors, items.labels, **keywords).threshold == point.threshold


@pytest.mark.parametrize("text", ["1,2", "a,b,c", "1,1,2", "-1,1,0.5", "nan,1,0.5"])
def test_costs_that_are_none(limen: Limen, embeddings_file: Path, tmp_path: Path, text: str) -> None:
    assert limen("calibrate", embeddings_file, "--cost", text, "--out", tmp_path / "op.json").code == 2


def test_a_density_point_keeps_its_cohort_beside_it(limen: Limen, tmp_path: Path) -> None:
    save_embeddings(make_classes(90, 8), tmp_path / "items.npz")
    out = tmp_path / "dense.json"
    outcome = limen(
        "calibrate", tmp_path / "items.npz", "--target-far", 0.05, "--score", "density", "--out", out
    )
    assert outcome.code == 0, outcome.err
    saved = read_point(out)
    assert saved.point.score.kind == "density"
    assert saved.cohort is not None
    measured = limen("evaluate", tmp_path / "items.npz", "--operating-point", out, "--json")
    assert json.loads(measured.out)["score"]["kind"] == "density"
    save_embeddings(make_classes(30, 8, seed=5), get_cohort_path(out))
    with pytest.raises(InputError, match="is not the cohort"):
        read_point(out)


def test_too_few_classes_still_make_a_bundle_that_says_why(limen: Limen, tmp_path: Path) -> None:
    for classes, has_points in ((2, False), (6, True)):
        save_embeddings(make_classes(classes, 8), tmp_path / "items.npz")
        outcome = limen("build", tmp_path / "items.npz", "--out", tmp_path / "bundle")
        assert outcome.code == 0, outcome.err
        points = json.loads((tmp_path / "bundle" / "manifest.json").read_text())["operating_points"]
        assert [points[name] is not None for name in ("verify", "match")] == [has_points] * 2
        if has_points:
            assert "Active for match: fpir-" in outcome.err
            assert "(estimated)" in outcome.err
        else:
            assert "2 classes are too few" in points["reasons"][0]
        assert limen("verify", tmp_path / "bundle").code == 0


def test_a_bundle_is_not_written_over_something_else(
    limen: Limen, embeddings_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert limen("build", embeddings_file, "--out", tmp_path / "mine").code == 2
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_bundle_gives_way_to_its_own_name_alone_and_that_is_asked_before_the_work(
    limen: Limen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seed in (("cars", 0), ("birds", 1)):
        save_embeddings(make_classes(5, 8, seed=seed), tmp_path / f"{name}.npz")
    out = tmp_path / "bundle"
    for _ in range(2):
        assert limen("build", tmp_path / "cars.npz", "--out", out).code == 0
    # whoever calls it has worked for nothing
    monkeypatch.setattr("limen.pipeline.make_bundle.make_points", None)
    outcome = limen("build", tmp_path / "birds.npz", "--out", out)
    assert outcome.code == 2
    assert "'cars'" in outcome.err
    assert json.loads((out / "manifest.json").read_text())["name"] == "cars"


def test_the_version_is_told(limen: Limen) -> None:
    outcome = limen("--version")
    assert (outcome.code, outcome.out) == (0, f"limen {metadata.version('limen')}\n")


def test_losses_are_listed_name_first(limen: Limen) -> None:
    names = [line.split()[0] for line in limen("losses").out.splitlines()]
    assert {"triplet", "circle", "proxy_anchor", "multi_similarity", "threshold_consistent_margin"} <= set(
        names
    )


def test_a_model_is_compared_with_a_better_one(limen: Limen, tmp_path: Path) -> None:
    save_embeddings(make_classes(40, 6, spread=0.9), tmp_path / "old.npz")
    save_embeddings(make_classes(40, 6, spread=0.3), tmp_path / "new.npz")
    outcome = limen("compare", tmp_path / "old.npz", tmp_path / "new.npz", "--json")
    assert outcome.code == 0, outcome.err
    differences = {difference["name"]: difference for difference in json.loads(outcome.out)["differences"]}
    assert differences["eer"]["b"] < differences["eer"]["a"]
    assert differences["map_at_r"]["interval"][0] > 0
    assert "Flips: " in limen("compare", tmp_path / "old.npz", tmp_path / "new.npz").out


def test_a_plan_says_how_much_data_a_target_needs(limen: Limen, embeddings_file: Path) -> None:
    outcome = limen("calibrate", embeddings_file, "--target-far", 0.001, "--plan")
    assert outcome.code == 0, outcome.err
    assert "classes" in outcome.out


def test_groups_are_diagnosed(limen: Limen, tmp_path: Path) -> None:
    items = make_classes(30, 6)
    cameras = np.arange(len(items)) % 2
    save_embeddings(
        EmbeddingSet.from_arrays(items.vectors, items.labels, metadata={"camera": cameras}),
        tmp_path / "x.npz",
    )
    assert "camera = 0" in limen("evaluate", tmp_path / "x.npz", "--group", "camera").out
    assert limen("evaluate", tmp_path / "x.npz", "--group", "camera", "--out", tmp_path / "r").code == 0
    groups = json.loads((tmp_path / "r" / "diagnosis.json").read_text())["groups"]
    assert {group["value"] for group in groups if group["column"] == "camera"} == {"0", "1"}


def test_data_is_checked_before_training(limen: Limen, tmp_path: Path) -> None:
    items = make_classes(20, 5)
    save_embeddings(items, tmp_path / "x.npz")
    (tmp_path / "c.yaml").write_text(f"data: {{kind: embeddings, path: '{tmp_path / 'x.npz'}'}}\n")
    outcome = limen("data", "check", tmp_path / "c.yaml")
    assert outcome.code == 0, outcome.err
    assert "classes" in outcome.out


def test_a_bundle_for_bursts_decides_several_vectors_together(limen: Limen, tmp_path: Path) -> None:
    items = make_classes(30, 12, dim=16, spread=1.2)
    sessions = np.tile(np.repeat(["mon", "tue", "wed", "thu"], 3), 30)
    named = EmbeddingSet(items.vectors, items.labels, items.ids, {"session": sessions})
    save_embeddings(named, tmp_path / "faces.npz")
    made = limen(
        "build",
        tmp_path / "faces.npz",
        "--out",
        tmp_path / "bundle",
        "--vectors",
        3,
        "--exclude-same",
        "session",
        "--aggregate",
        "nearest",
    )
    assert made.code == 0, made.err
    with open_bundle(tmp_path / "bundle") as gallery:
        points = {point.id: point for point in gallery.operating_points.values()}
        assert {point.target.vectors for point in points.values() if point.target.kind == "fpir"} == {3}
        assert {point.target.vectors for point in points.values() if point.target.kind == "far"} == {1}
        together, single = gallery.match(items.vectors[:4], sizes=[3, 1])
        assert (together.beyond_proof, single.beyond_proof) == (False, True)
        assert together.label == "0"
        assert points[together.operating_point].target.vectors == 3
        assert together.probability is not None
    report = Report.load(tmp_path / "bundle" / "report.json")
    assert any("one 'session'" in reason for reason in report.reasons)


def test_vectors_are_of_a_search(limen: Limen, tmp_path: Path) -> None:
    save_embeddings(make_classes(20, 6), tmp_path / "faces.npz")
    out = tmp_path / "point.json"
    done = limen("calibrate", tmp_path / "faces.npz", "--target-far", 0.01, "--vectors", 2, "--out", out)
    assert (done.code, out.exists()) == (2, False)
    assert "queries of 2 vectors are of a 1:N search: they need a target FPIR" in done.err
