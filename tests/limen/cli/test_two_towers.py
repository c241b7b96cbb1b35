"""Titles that ask for skills: a tower for each, from a table of pairs to a served search."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import numpy as np
import pytest

from api_schemas.config import Config
from api_schemas.report import Report
from embeddings.embedding_set import EmbeddingSet
from embeddings.files import open_embeddings, read_embeddings
from encoder import Encoder
from index.bundle import read_bundle, verify_bundle
from limen.pipeline.evaluation_source import open_run
from tests.limen.conftest import Limen, run_limen
from tests.service.bundles import serve

SMALL = (
    *("--set", "model.backbone=ngram", "--set", "model.width=16", "--set", "model.embedding_dim=16"),
    *("--set", "data.text.buckets=1024", "--set", "data.text.length=32", "--set", "sampler.batch_size=32"),
    *("--set", "schedule.epochs=1", "--set", "schedule.steps_per_epoch=30", "--set", "optimizer.lr=0.01"),
)
CHEAP = ("--set", "calibration.targets={far: 0.01, fpir: 0.1}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of pairs, the configuration that `limen init` writes for it, its run and its bundle."""
    folder = tmp_path_factory.mktemp("towers")
    lines = ["query,item"]
    lines += [f"title{c} at {number},skill{c} no {number % 2}" for c in range(60) for number in range(4)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("pairs.csv").write_text("\n".join(lines) + "\n")
        outcome = run_limen("init", "pairs", "pairs.csv")
        assert outcome.code == 0, outcome.err
        outcome = run_limen("train", "pairs.yaml", *SMALL)
        assert outcome.code == 0, outcome.err
        outcome = run_limen("export", *CHEAP, "runs/pairs", "--out", "bundle")
        assert outcome.code == 0, outcome.err
    return folder


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder / "runs" / "pairs"


def select_role(items: EmbeddingSet, role: str) -> EmbeddingSet:
    return items.subset(np.flatnonzero(items.metadata["role"] == role))


def test_what_init_writes_trains_two_towers(folder: Path) -> None:
    config = Config.load(folder / "pairs.yaml")
    assert (config.model.towers, config.data.role_column, config.loss[0].name) == (2, "role", "nt_xent")


def test_each_role_is_embedded_by_its_own_tower(run: Path) -> None:
    opened = open_run(run)
    encoder, items = Encoder.open(opened.ensure_encoder()), opened.load_embeddings("test")
    assert items is not None
    network = opened.load_network()
    assert network.query_tower is not None
    own, other = network.head.state_dict(), network.query_tower.head.state_dict()
    assert any(not np.array_equal(own[name], other[name]) for name in own)
    for role, tower in (("query", encoder.queries), ("item", encoder)):
        part = select_role(items, role)
        again = tower.encode(part.metadata["text"].tolist())
        np.testing.assert_allclose(again, part.vectors, atol=1e-5)
    queries = select_role(items, "query")
    assert np.abs(encoder.encode(queries.metadata["text"].tolist()) - queries.vectors).max() > 0.01


def test_the_gallery_and_its_report_are_of_items_alone(run: Path, limen: Limen) -> None:
    manifest = verify_bundle(Path("bundle"))
    items = open_embeddings(Path("bundle/vectors.npy"), Path("bundle/items.parquet")).read()
    assert set(items.metadata["role"].tolist()) == {"item"}
    assert manifest.counts.items == 120
    report = Report.load(Path("bundle/report.json"))
    outcome = limen("evaluate", "runs/pairs", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["retrieval"] == report.model_dump(mode="json")["retrieval"]
    # as a loop over the test queries says
    test = read_embeddings(run / "embeddings" / "test.npz")
    queries, gallery = select_role(test, "query"), select_role(test, "item")
    nearest = (queries.vectors @ gallery.vectors.T).argmax(1)
    assert report.retrieval.recall_at_1 == pytest.approx((gallery.labels[nearest] == queries.labels).mean())
    assert (report.counts.items, report.counts.genuine_pairs) == (len(queries), len(queries))


def test_points_are_of_pairs_between_roles(run: Path, limen: Limen) -> None:
    far = next(p for p in read_bundle(Path("bundle")).points.values() if p.target.kind == "far")
    genuine = 0  # each class has two queries and an item: two pairs of the three that there would be
    for part in ("validation", "test"):
        items = read_embeddings(run / "embeddings" / f"{part}.npz")
        queries, gallery = select_role(items, "query"), select_role(items, "item")
        genuine += int((queries.labels[:, None] == gallery.labels).sum())
    assert far.proof is not None
    assert far.proof.n_genuine_pairs == genuine
    outcome = limen("calibrate", "runs/pairs", "--target-far", "0.05", "--estimated", "--out", "point.json")
    assert outcome.code == 0, outcome.err
    outcome = limen("export", "runs/pairs", "--cohort", "runs/pairs/embeddings/train.npz", "--out", "other")
    assert (outcome.code, "--cohort: does not go with data.role_column" in outcome.err) == (2, True)
    outcome = limen("compare", "runs/pairs", "runs/pairs")
    assert (outcome.code, "this run's have roles" in outcome.err) == (2, True)


def test_embed_takes_the_tower_of_the_role(run: Path, limen: Limen) -> None:
    Path("more.csv").write_text("text,label\ntitle1 at 9,a\ntitle2 at 9,b\n")
    encoder = Encoder.open(run / "encoder")
    texts = ["title1 at 9", "title2 at 9"]
    expected = {"query": encoder.queries.encode(texts), "item": encoder.encode(texts)}
    for source in ("runs/pairs", "bundle"):
        for role, vectors in expected.items():
            outcome = limen("embed", source, "more.csv", "--out", "more.npz", "--role", role)
            assert outcome.code == 0, outcome.err
            np.testing.assert_allclose(read_embeddings(Path("more.npz")).vectors, vectors, atol=1e-5)


def test_the_service_asks_by_one_tower_and_stores_by_the_other(run: Path, tmp_path: Path) -> None:
    encoder = Encoder.open(run / "encoder")
    text = "title3 at 7"
    asked, held = encoder.queries.encode([text])[0], encoder.encode([text])[0]
    with serve(Path("bundle"), data=tmp_path / "data") as address, httpx.Client(base_url=address) as client:

        def post(path: str, **body: object) -> dict[str, object]:
            answer = client.request("PUT" if path == "/v1/items" else "POST", path, json=body)
            assert answer.status_code == 200, answer.text
            found: dict[str, object] = answer.json()
            return found

        by_text = post("/v1/search", queries=[{"input": text}], k=3)["results"]
        assert by_text == post("/v1/search", queries=[{"vector": asked.tolist()}], k=3)["results"]
        post("/v1/items", items=[{"id": "new", "label": "new", "input": text}])
        stored = client.get("/v1/items/new").json()["vector"]
        np.testing.assert_allclose(stored, held, atol=1e-5)
        (pair,) = post("/v1/verify", pairs=[{"a": {"input": text}, "b": {"input": text}}])["results"]  # type: ignore[misc]
        assert pair["similarity"] == pytest.approx(float(asked @ held), abs=1e-4)  # type: ignore[index]
        for role, vector in (("query", asked), ("item", held)):
            (embedded,) = post("/v1/embeddings", input=[text], role=role)["data"]  # type: ignore[misc]
            np.testing.assert_allclose(embedded["embedding"], vector, atol=1e-5)  # type: ignore[index]
