"""The proof of a point that was fitted on all classes there are: random halvings of them.

Fitted on one half, measured on the other, again and again; reported, never a gate (contract, section 4).
"""

from __future__ import annotations

import numpy as np

from api_schemas.operating_point import Evidence, Target
from common.errors import CalibrationRefused
from common.progress import Track
from decision.scorers import Scorer
from embeddings.embedding_set import EmbeddingSet
from evaluation.calibration.bootstrap_bounds import resampled_classes
from evaluation.calibration.density_score import scored_pairs
from evaluation.calibration.measure_threshold import measure
from evaluation.calibration.pair_thresholds import genuine_pairs
from evaluation.calibration.select_threshold import choose

HALVINGS = 20
HALVING_REPLICATES = 300


def proof_by_halvings(
    fit: EmbeddingSet, target: Target, scorer: Scorer, seed: int, track: Track
) -> Evidence | None:
    """Fitted on a random half of the classes, measured on the other, 20 times; means over the halvings."""
    rng = np.random.default_rng([seed, 20])
    own = target.model_copy(update={"gallery": None})
    seen: list[Evidence] = []
    half = len(fit.classes) // 2
    weights = resampled_classes(half, seed, HALVING_REPLICATES)
    for _ in track(range(HALVINGS), "proof by halvings", HALVINGS):
        drawn = rng.permutation(fit.classes)
        pairs = scored_pairs(fit.of_classes(drawn[:half]), scorer)
        other = scored_pairs(fit.of_classes(drawn[half : 2 * half]), scorer)
        try:
            threshold = choose(pairs, genuine_pairs(pairs), own, weights, seed=seed).threshold
        except CalibrationRefused:
            continue
        measured = measure(
            other,
            threshold,
            target.confidence,
            weights,
            identification=False,
            classes_disjoint=True,
            aggregate=target.aggregate,
        )
        seen.append(measured.evidence)
    if not seen:
        return None

    def mean(field: str) -> float | None:
        values = [value for value in (getattr(one, field) for one in seen) if value is not None]
        return float(np.mean(values)) if values else None

    def quantile(field: str) -> float | None:
        values = [value for value in (getattr(one, field) for one in seen) if value is not None]
        return float(np.quantile(values, target.confidence)) if values else None

    return Evidence(
        n_items=round(mean("n_items") or 0),
        n_classes=half,
        n_genuine_pairs=round(mean("n_genuine_pairs") or 0),
        n_impostor_pairs=round(mean("n_impostor_pairs") or 0),
        far=mean("far"),
        far_upper=quantile("far"),
        frr=mean("frr"),
        frr_upper=quantile("frr"),
        fpir=mean("fpir"),
        fpir_upper=quantile("fpir"),
        fnir=mean("fnir"),
        method=(
            f"{len(seen)} of {HALVINGS} random halvings of the classes: fitted on one half, measured on the "
            f"other, each half its own gallery; means, upper values are the {target.confidence:g} quantile "
            "over halvings"
        ),
        classes_disjoint=True,
    )
