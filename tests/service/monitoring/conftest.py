"""A model of real sentences, and a monitor of it whose turns a test takes itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from api_schemas.build_config import IndexConfig
from api_schemas.operating_point import GallerySize, Target
from embeddings.embedding_set import EmbeddingSet
from embeddings.hashes import hash_model_name
from evaluation.calibration.calibrate import calibrate_threshold
from evaluation.calibration.sets.sources import CalibrationSources
from evaluation.evaluate import evaluate_embeddings
from index.bundle import write_bundle
from service.models.loaded_model import LoadedModel, load_model
from service.models.model_registry import ModelRegistry
from service.monitoring.monitor import Monitor
from service.settings import load_settings

DIMENSION = 48
OF_CLASS = 12  # items in the gallery
Turn = Callable[[np.ndarray], None]


@dataclass(frozen=True)
class Sentences:
    """CLINC150 in the directions of most variance: a bundle of 100 intents, and queries.

    ``known`` are test sentences of its intents with ``labels``; ``unknown`` are of no intent at all.
    """

    bundle: Path
    model: LoadedModel
    known: np.ndarray
    labels: np.ndarray
    unknown: np.ndarray


@pytest.fixture(scope="session")
def sentences(datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentences]:
    with np.load(datasets / "clinc150" / "clinc150_minilm.npz") as stored:
        vectors, labels, part = (stored[name] for name in ("embeddings", "labels", "part"))
    labels, part = labels.astype(str), part.astype(str)
    vectors = vectors.astype(np.float64)
    is_train = part == "train"
    centre = vectors[is_train].mean(axis=0)
    directions = np.linalg.svd(vectors[is_train][::7] - centre, full_matrices=False)[2][:DIMENSION]
    rows = normalise((vectors - centre) @ directions.T)
    intents = sorted({label for label in labels if label != "oos"})
    fit = EmbeddingSet.from_arrays(*select(rows, labels, is_train, intents[100:]))
    gallery = EmbeddingSet.from_arrays(*select(rows, labels, is_train, intents[:100]))
    size = GallerySize(items=len(gallery), classes=100)
    model_hash = hash_model_name("sentences", DIMENSION)
    point = calibrate_threshold(
        CalibrationSources(fit), Target(kind="fpir", value=0.1, gallery=size), model_hash=model_hash
    ).point
    bundle = tmp_path_factory.mktemp("sentences") / "clinc"
    write_bundle(
        bundle,
        name="clinc",
        items=gallery,
        model_hash=model_hash,
        encoder_folder=None,
        index_config=IndexConfig(),
        report=evaluate_embeddings(gallery, model_hash=model_hash, split="test"),
        operating_points=[point],
        active={"match": point.id, "verify": None},
        reasons=[],
        cohort=None,
        config_yaml="",
    )
    model = load_model(bundle, load_settings(bundle=bundle))
    is_test = np.isin(part, ["test", "val"]) & np.isin(labels, intents[:100])
    yield Sentences(bundle, model, rows[is_test], labels[is_test], rows[labels == "oos"])
    model.gallery.close()


def normalise(rows: np.ndarray) -> np.ndarray:
    return np.float32(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def select(
    rows: np.ndarray, labels: np.ndarray, among: np.ndarray, chosen: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Some items of each class among some rows; neighbouring rows are often paraphrases of each other."""
    order = np.random.default_rng(0).permutation(len(rows))
    order = order[among[order]]
    picked = np.concatenate([order[labels[order] == label][:OF_CLASS] for label in chosen])
    return rows[picked], labels[picked]


class WatchedModel:
    """A model under a monitor; queries are decided as ``/v1/match`` does, a turn follows each request."""

    def __init__(self, model: LoadedModel, bundle: Path, **given: Any) -> None:
        registry = SimpleNamespace(active=model, active_folder=bundle)
        self.model = model
        self.monitor = Monitor(load_settings(bundle=bundle, **given), cast(ModelRegistry, registry))
        self.now = 1_700_000_000.0

    def ask(self, queries: np.ndarray, of_request: int = 50) -> None:
        point = self.model.active_match
        assert point is not None
        for start in range(0, len(queries), of_request):
            some = queries[start : start + of_request]
            decisions = self.model.gallery.match(some, k=100)
            self.monitor.recorder.observe_match(point, decisions, some)
            self.now += 5
            self.monitor.take_turn(self.now)

    @property
    def firing(self) -> set[str]:
        """The rules whose alerts fire."""
        return {alert.rule for alert in self.monitor.list_alerts() if alert.state == "firing"}


@pytest.fixture
def watched(sentences: Sentences) -> WatchedModel:
    return WatchedModel(sentences.model, sentences.bundle)
