"""The proof of a point that was fitted on all classes there are: random halvings of them.

Fitted on one half, measured on the other, again and again; reported, never a gate (docs/specification.md,
Calibration, Proof).
"""

from __future__ import annotations

import numpy as np

from api_schemas.operating_point import Evidence, Target
from common.errors import CalibrationRefused
from common.progress import Track
from decision.scorers import Scorer
from embeddings.embedding_set import EmbeddingSet
from evaluation.calibration.measure_threshold import measure_threshold
from evaluation.calibration.pair_thresholds import score_genuine_pairs
from evaluation.calibration.select_threshold import select_threshold
from evaluation.metrics.class_bootstrap import draw_classes
from evaluation.pairs.pairs import arrange

HALVINGS = 20
HALVING_REPLICATES = 300


def prove_by_halvings(
    fit: EmbeddingSet, target: Target, scorer: Scorer, seed: int, track: Track
) -> Evidence | None:
    """Fitted on a random half of the classes, measured on the other, 20 times; means over the halvings."""
    rng = np.random.default_rng([seed, 20])
    own_gallery = target.model_copy(update={"gallery": None})
    measured: list[Evidence] = []
    half = len(fit.classes) // 2
    weights = draw_classes(half, seed, HALVING_REPLICATES)
    for _ in track(range(HALVINGS), "proof by halvings", HALVINGS):
        classes = rng.permutation(fit.classes)
        first, second = (
            arrange(fit.select_classes(part), scorer=scorer)
            for part in (classes[:half], classes[half : 2 * half])
        )
        try:
            genuine = score_genuine_pairs(first)
            threshold = select_threshold(first, genuine, own_gallery, weights, seed=seed).threshold
        except CalibrationRefused:
            continue
        measurement = measure_threshold(
            second,
            threshold,
            target.confidence,
            weights,
            identification=False,
            classes_disjoint=True,
            aggregate=target.aggregate,
        )
        measured.append(measurement.evidence)
    if not measured:
        return None

    def collect(field: str) -> list[float]:
        values = (getattr(evidence, field) for evidence in measured)
        return [value for value in values if value is not None]

    def compute_mean(field: str) -> float | None:
        values = collect(field)
        return float(np.mean(values)) if values else None

    def compute_quantile(field: str) -> float | None:
        values = collect(field)
        return float(np.quantile(values, target.confidence)) if values else None

    return Evidence(
        n_items=round(compute_mean("n_items") or 0),
        n_classes=half,
        n_genuine_pairs=round(compute_mean("n_genuine_pairs") or 0),
        n_impostor_pairs=round(compute_mean("n_impostor_pairs") or 0),
        far=compute_mean("far"),
        far_upper=compute_quantile("far"),
        frr=compute_mean("frr"),
        frr_upper=compute_quantile("frr"),
        fpir=compute_mean("fpir"),
        fpir_upper=compute_quantile("fpir"),
        fnir=compute_mean("fnir"),
        method=(
            f"{len(measured)} of {HALVINGS} random halvings of the classes: fitted on one half, measured on "
            f"the other, each half its own gallery; means, upper values are the {target.confidence:g} "
            "quantile over halvings"
        ),
        classes_disjoint=True,
    )
