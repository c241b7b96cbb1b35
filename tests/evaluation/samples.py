"""Sets of embeddings, scorers and pair lists that the tests of evaluation share."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from api_schemas.operating_point import Score, Target
from api_schemas.report import Consistency, Report
from embeddings.embedding_set import EmbeddingSet
from embeddings.similarity import compute_pair_similarities
from evaluation.calibration.calibrate import Calibration, calibrate_threshold
from evaluation.calibration.sets.sources import CalibrationSources
from evaluation.evaluate import evaluate_embeddings
from evaluation.metrics.opis import OpisSettings, measure_consistency
from evaluation.pairs.pairs import Pairs
from evaluation.pairs.sweep import sweep_pairs


def make_clusters(
    seed: int, classes: int = 40, each: int = 6, dim: int = 12, prefix: str = "c"
) -> EmbeddingSet:
    """Classes around random centres, of unequal spread."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((classes, dim))
    spread = 0.9 * np.exp(0.3 * rng.standard_normal(classes))
    vectors = centres[:, None] + spread[:, None, None] * rng.standard_normal((classes, each, dim))
    labels = np.repeat([f"{prefix}{i}" for i in range(classes)], each)
    return EmbeddingSet.from_arrays(vectors.reshape(-1, dim), labels)


def make_dense_half(seed: int, classes: int, prefix: str, each: int = 8, dim: int = 16) -> EmbeddingSet:
    """Half of the classes share a direction: impostors there are as alike as genuine pairs elsewhere."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((classes, dim))
    centres[::2, 0] += 4.0
    vectors = centres[:, None] + 0.8 * rng.standard_normal((classes, each, dim))
    labels = np.repeat([f"{prefix}{i}" for i in range(classes)], each)
    return EmbeddingSet.from_arrays(vectors.reshape(-1, dim), labels)


def make_sessions(seed: int, classes: int, size: int) -> EmbeddingSet:
    """Classes of unequal spread in 8 dimensions; the metadata column ``session`` holds four sessions."""
    draw = np.random.default_rng(seed)
    centres = np.repeat(draw.normal(size=(classes, 8)), size, axis=0)
    widths = np.repeat(draw.uniform(0.2, 1.2, classes), size)[:, None]
    vectors = centres + widths * draw.normal(size=centres.shape)
    sessions = draw.integers(0, 4, classes * size)
    return EmbeddingSet.from_arrays(
        vectors, np.repeat(np.arange(classes), size), metadata={"session": sessions}
    )


def make_ties(seed: int, n: int = 70, classes: int = 8) -> EmbeddingSet:
    """Vectors on few directions: duplicates and equal similarities everywhere; two lone items; 4 sessions."""
    draw = np.random.default_rng(seed)
    vectors = draw.integers(-2, 3, size=(n, 3)).astype(float)
    vectors[np.all(vectors == 0, axis=1)] = 1
    labels = np.concatenate([draw.integers(0, classes, n - 2), [16777216, 16777217]])
    return EmbeddingSet.from_arrays(vectors, labels, metadata={"session": draw.integers(0, 4, n)})


def make_cameras() -> EmbeddingSet:
    """Ten classes of six items and a lone one; the metadata column ``camera`` holds a camera of one class."""
    draw = np.random.default_rng(0)
    labels = np.append(np.repeat(np.arange(10), 6), [77])
    centres = draw.normal(size=(78, 5))
    camera = draw.choice(["left", "right"], 61)
    camera[:6] = "alone"
    vectors = centres[labels] + 0.7 * draw.normal(size=(61, 5))
    return EmbeddingSet.from_arrays(vectors, labels, metadata={"camera": camera})


def make_nine_points() -> EmbeddingSet:
    """The worked example of docs/specification.md, OPIS: three classes of three points on a circle."""
    angles = np.deg2rad([0, 10, 20, 50, 80, 110, 130, 135, 190])
    return EmbeddingSet.from_arrays(
        np.stack([np.cos(angles), np.sin(angles)], axis=1), np.repeat([0, 1, 2], 3)
    )


def list_all_pairs(items: EmbeddingSet) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows i < j, their scores by the kernel, and whether they are genuine."""
    i, j = np.array(list(itertools.combinations(range(len(items)), 2))).T
    scores = compute_pair_similarities(items.vectors[i], items.vectors[j])
    return i, j, scores, items.labels[i] == items.labels[j]


def evaluate(items: EmbeddingSet, **options: Any) -> Report:
    """The report of a set."""
    return evaluate_embeddings(items, model_hash="m", split="test", **options)


def calibrate(items: EmbeddingSet, target: Target, **options: Any) -> Calibration:
    """An operating point, and its cohort."""
    sources, others = split_options(items, options)
    return calibrate_threshold(sources, target, name="p", model_hash="m", **others)


def split_options(items: EmbeddingSet, options: dict[str, Any]) -> tuple[CalibrationSources, dict[str, Any]]:
    """Options that are sets to calibrate on, as sources with the items to fit on, and the others."""
    names = {field.name for field in fields(CalibrationSources)}
    sets = {name: value for name, value in options.items() if name in names}
    return CalibrationSources(items, **sets), {n: v for n, v in options.items() if n not in names}


def measure_opis(pairs: Pairs) -> Consistency:
    """The report's section ``consistency`` of these pairs."""
    return measure_consistency(sweep_pairs(pairs), OpisSettings(), 0)[0]


@dataclass
class MappedScorer:
    """A score that is an ascending function of the similarity, and not the similarity itself."""

    function: Callable[[np.ndarray], np.ndarray]
    kind = "cosine"
    is_similarity = False
    needs_cohort = False
    score = Score()

    def compute_densities(self, vectors: np.ndarray) -> np.ndarray:
        return np.zeros(len(vectors), dtype=np.float32)

    def __call__(
        self,
        similarities: ArrayLike,
        densities_a: ArrayLike | None = None,
        densities_b: ArrayLike | None = None,
    ) -> np.ndarray:
        return self.function(np.asarray(similarities, dtype=np.float64)).astype(np.float32)
