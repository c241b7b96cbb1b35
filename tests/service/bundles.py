"""Small bundles of random clusters, and services that serve them over real sockets."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from PIL import Image

from api_schemas.build_config import IndexConfig
from api_schemas.operating_point import ClassRates, GallerySize, OperatingPoint, Score, Target
from decision.scorers import CosineScorer
from decision.targets import ENDPOINTS
from embeddings.embedding_set import EmbeddingSet
from embeddings.hashes import hash_cohort, hash_encoder, hash_model_name
from encoder import Encoder
from evaluation.audit.decision_figures import add_decision_figures
from evaluation.calibration.calibrate import calibrate_threshold
from evaluation.calibration.sets.sources import CalibrationSources
from evaluation.calibration.tradeoff.measure_tradeoff import MeasuredSets, measure_tradeoff
from evaluation.evaluate import evaluate_embeddings
from index.bundle import write_bundle
from service.app import create_app
from service.server import build_config, open_listener
from service.settings import load_settings
from tests.encoder.encoders import GREY, write_linear_encoder

DIMENSION = 16


@dataclass(frozen=True)
class ServiceBundle:
    """A bundle's folder, what its gallery holds, and its points by what they decide."""

    path: Path
    gallery: EmbeddingSet
    points: dict[str, OperatingPoint]

    def get_vector(self, row: int) -> list[float]:
        return [float(value) for value in self.gallery.vectors[row]]


def make_clusters(seed: int, classes: int, items: int, prefix: str) -> EmbeddingSet:
    """Random classes, some tight and some loose, on the sphere of 16 dimensions."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, 1, DIMENSION))
    spread = rng.uniform(0.15, 0.45, size=(classes, 1, 1))
    vectors = (centres + spread * rng.normal(size=(classes, items, DIMENSION))).reshape(-1, DIMENSION)
    labels = np.repeat([f"{prefix}{number}" for number in range(classes)], items)
    rows = np.arange(classes * items)
    return EmbeddingSet.from_arrays(
        vectors,
        labels,
        ids=[f"item-{row}" for row in rows],
        metadata={"camera": rows % 3, "place": np.where(rows % 2 == 0, "north", "south")},
    )


@cache
def calibrate_points() -> dict[str, OperatingPoint]:
    """A 1:1 and a 1:N point for the gallery of `make_bundle`, proven on it."""
    fit, gallery = make_clusters(1, 50, 8, "fit-"), make_clusters(2, 40, 8, "class-")
    size = GallerySize(items=len(gallery), classes=len(gallery.classes))
    targets = {
        "verify": Target(kind="far", value=0.05),
        "match": Target(kind="fpir", value=0.2, gallery=size),
    }
    return {
        endpoint: calibrate_threshold(
            CalibrationSources(fit, gallery), target, name=endpoint, model_hash="0" * 64
        ).point
        for endpoint, target in targets.items()
    }


def make_bundle(out: Path, points: bool = True, model: str = "clusters") -> ServiceBundle:
    """Write a bundle; without points it says why it has none."""
    model_hash = hash_model_name(model, DIMENSION)
    renamed = {
        endpoint: point.with_changes(model_hash=model_hash)
        for endpoint, point in (calibrate_points() if points else {}).items()
    }
    return _write(out, make_clusters(2, 40, 8, "class-"), model_hash, renamed)


HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    "\u202eright to left\u202c \u05e9\u05dc\u05d5\u05dd",
    "{{ 7 * 7 }} ${7 * 7}",
    "long " + "x" * 495,
    "javascript:alert(3)",
    'it\'s "quoted" & <b>bold</b>',
)


def make_hostile_bundle(out: Path) -> ServiceBundle:
    """The same with labels and metadata that a page must show as text alone; the worst classes have them."""
    model_hash = hash_model_name("hostile", DIMENSION)
    gallery = make_clusters(2, 40, 8, "class-")
    worst = ("class-8", "class-12", "class-31", "class-0", "class-20", "class-29", "class-17")
    names = dict(zip(worst, HOSTILE, strict=True))
    labels = np.array([names.get(str(label), str(label)) for label in gallery.labels])
    place = np.where(np.arange(len(labels)) % 2, HOSTILE[0], HOSTILE[2])
    renamed = EmbeddingSet(gallery.vectors, labels, gallery.ids, {**gallery.metadata, "place": place})
    points = {
        endpoint: point.with_changes(model_hash=model_hash, name=HOSTILE[0])
        for endpoint, point in calibrate_points().items()
    }
    return _write(out, renamed, model_hash, points)


def make_density_bundle(out: Path, like: ServiceBundle) -> tuple[ServiceBundle, EmbeddingSet]:
    """A bundle of the same gallery whose 1:1 point thresholds a density score; and its cohort."""
    cohort = make_clusters(1, 50, 8, "fit-")
    score = Score(
        kind="density",
        form="csls",
        parameters={"neighbours": [5], "weights": [1.0], "slope": 1.0, "intercept": 0.0},
        cohort_sha256=hash_cohort(cohort.vectors),
    )
    density_point = like.points["verify"].with_changes(score=score, threshold=0.1)
    points = {"verify": density_point, "match": like.points["match"]}
    return _write(out, like.gallery, density_point.model_hash, points, cohort=cohort), cohort


def make_image_bundle(out: Path) -> ServiceBundle:
    """A bundle with an encoder of grey images, 4 high and 6 wide, and a gallery of random ones."""
    encoder_folder = out.with_name(f"{out.name}-encoder")
    encoder_folder.mkdir(parents=True)
    write_linear_encoder(encoder_folder, GREY, dim=DIMENSION)
    model_hash = hash_encoder(encoder_folder / "encoder.onnx", encoder_folder / "preprocessing.json")
    vectors = Encoder.open(encoder_folder).encode([make_grey_image(seed) for seed in range(40)])
    gallery = EmbeddingSet.from_arrays(vectors, np.arange(40) // 2, ids=np.arange(40))
    return _write(out, gallery, model_hash, {}, encoder_folder)


def make_grey_image(seed: int) -> Image.Image:
    """A random image."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (4, 6), dtype=np.uint8))


def _write(
    out: Path,
    gallery: EmbeddingSet,
    model_hash: str,
    points: dict[str, OperatingPoint],
    encoder_folder: Path | None = None,
    cohort: EmbeddingSet | None = None,
) -> ServiceBundle:
    report = evaluate_embeddings(gallery, model_hash=model_hash, split="test")
    if "match" in points:
        report = add_decision_figures(report, gallery, points["match"], CosineScorer(), groups=["place"])
    sets = MeasuredSets.of_items(gallery, CosineScorer(), "nearest", None)
    tradeoffs = [measure_tradeoff(sets, endpoint, list(points.values())) for endpoint in ENDPOINTS]
    report = report.model_copy(update={"tradeoffs": tradeoffs if points else []})
    write_bundle(
        out,
        name="clusters",
        items=gallery,
        model_hash=model_hash,
        encoder_folder=encoder_folder,
        index_config=IndexConfig(),
        report=report,
        operating_points=list(points.values()),
        active={key: points[key].id if key in points else None for key in ("verify", "match")},
        reasons=[] if points else ["far: 12 classes are too few, 20 are needed."],
        cohort=cohort,
        config_yaml="",
    )
    return ServiceBundle(out, gallery, points)


@contextmanager
def serve(bundle: Path, **given: Any) -> Iterator[str]:
    """A service in a thread; gives its address once it is ready (or would never be)."""
    settings = load_settings(bundle=bundle, port=0, **given)
    listener = open_listener(settings.host, 0)
    server = uvicorn.Server(build_config(create_app(settings), settings))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        deadline = time.monotonic() + 60
        while httpx.get(f"{address}/readyz").status_code != 200 and time.monotonic() < deadline:
            time.sleep(0.02)
        yield address
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        listener.close()


def read_stored_feedback(data: Path) -> list[dict[str, Any]]:
    """The feedback entries in a data folder."""
    (file,) = data.glob("models/*/limen.sqlite")
    with closing(sqlite3.connect(file)) as database:
        return [
            json.loads(row[0]) for row in database.execute("SELECT document FROM feedback ORDER BY number")
        ]


def make_large_bundle(out: Path, classes: int = 10_000) -> Path:
    """A bundle of so many classes of one item, each with rates of its own at the 1:1 point."""
    rng = np.random.default_rng(0)
    labels = [f"name {number:05}" for number in range(classes)]
    rows = rng.normal(size=(classes, DIMENSION))
    items = EmbeddingSet.from_arrays(rows, labels, ids=[f"i{number}" for number in range(classes)])
    rates = zip(labels, rng.uniform(0, 0.1, (classes, 2)).tolist(), strict=True)
    per_class = [ClassRates(label=name, n_items=5, far=a, frr=r, utility=1 - a - r) for name, (a, r) in rates]
    point = calibrate_points()["verify"].with_changes(per_class=per_class)
    write_bundle(
        out,
        name=out.name,
        items=items,
        model_hash=point.model_hash,
        index_config=IndexConfig(kind="flat"),
        operating_points=[point],
        active={"verify": point.id, "match": None},
        reasons=["none."],
    )
    return out
