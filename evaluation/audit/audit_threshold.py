"""Audit of a threshold that was chosen elsewhere: what it does here, for whom worst, what would be better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from api_schemas.operating_point import (
    Aggregate,
    ClassRates,
    Evidence,
    GallerySize,
    OperatingPoint,
    Proof,
    Target,
)
from api_schemas.report import Audit, DistanceKind, InsteadThreshold
from common.errors import CalibrationRefused
from common.progress import Track, silent
from decision.scorers import CosineScorer
from decision.targets import Endpoint
from embeddings.embedding_set import EmbeddingSet
from embeddings.hashes import hash_items
from evaluation.audit.distance_threshold import RULES, convert_from_similarity, convert_to_similarity
from evaluation.audit.group_rates import measure_groups
from evaluation.audit.threshold_rates import MeasuredThreshold
from evaluation.calibration.calibrate import Calibrator
from evaluation.calibration.fit_probability import fit_probability
from evaluation.calibration.fpir_thresholds import SEARCH_RULES
from evaluation.calibration.sets.sources import CalibrationSources, join_sets
from evaluation.pairs.exclusions import ExcludeSame

WORST = 10
INSTEAD: dict[str, Target] = {
    "far_1": Target(kind="far", value=0.01),
    "fpir_1": Target(kind="fpir", value=0.01),
}


@dataclass(frozen=True, eq=False)
class AuditedThreshold:
    """An audit, and what else is known of the same threshold.

    Attributes:
        measured: the pairs and queries it was measured on.
        items: the data, the queries where there is a gallery.
        reasons: why figures are missing, and why a point instead is an estimate.
    """

    audit: Audit
    measured: MeasuredThreshold
    items: EmbeddingSet
    gallery: EmbeddingSet | None
    reasons: list[str]

    def build_point(self, endpoint: Endpoint, model_hash: str, name: str | None = None) -> OperatingPoint:
        """An operating point of the threshold, marked as chosen by hand, with the audit as its proof.

        Its target is the rate that was measured: the FPIR for ``match``, the FAR for ``verify``.
        """
        audit, measured = self.audit, self.measured
        pairs = measured.pairs
        references = self.items if self.gallery is None else self.gallery
        proof = Proof(
            n_items=len(self.items),
            n_classes=len(self.items.classes),
            n_genuine_pairs=pairs.n_genuine,
            n_impostor_pairs=pairs.n_impostor,
            far=audit.far,
            far_upper=None if audit.far_ci is None else audit.far_ci[1],
            frr=audit.frr,
            frr_upper=None if audit.frr_ci is None else audit.frr_ci[1],
            fpir=audit.fpir,
            fpir_upper=None if audit.fpir_ci is None else audit.fpir_ci[1],
            fnir=audit.fnir,
            method=f"chosen by hand ({RULES[audit.distance].format(audit.threshold)}) and audited: counted "
            f"on {len(self.items)} items, intervals resample classes",
            classes_disjoint=True,
            far_ci=audit.far_ci,
            frr_ci=audit.frr_ci,
            fpir_ci=audit.fpir_ci,
            fnir_ci=audit.fnir_ci,
            status="chosen",
        )
        is_match = endpoint == "match"
        rate = audit.fpir if is_match else audit.far
        n = audit.unknown_queries if is_match else pairs.n_impostor
        gallery = GallerySize(items=len(references), classes=len(references.classes)) if is_match else None
        # where nothing was seen, the highest rate at which that is still likely
        unseen = -float(np.expm1(np.log1p(-audit.confidence) / max(1, n)))
        value = min(rate or unseen, 1 - 1e-6)
        target = Target(
            kind="fpir" if is_match else "far",
            value=value,
            confidence=audit.confidence,
            gallery=gallery,
            aggregate=audit.aggregate if is_match else "nearest",
        )
        probability = None
        if pairs.symmetric and pairs.n_genuine:
            rule = SEARCH_RULES[measured.aggregate]
            probability = fit_probability(rule.sample_labelled(pairs, measured.trials, 0))
        return OperatingPoint.freeze(
            name=name or f"chosen-{audit.distance}-{audit.threshold:g}",
            created_at=datetime.now(UTC),
            model_hash=model_hash,
            data_hash=hash_items(self.items),
            score=CosineScorer().score,
            threshold=audit.similarity,
            target=target,
            fit=Evidence(**proof.model_dump(exclude={"status"})),
            proof=proof,
            per_class=measured.measure_classes() if measured.is_of_pairs else [],
            probability=probability,
            consistency=None,
        )


def audit_threshold(
    items: EmbeddingSet,
    threshold: float,
    distance: DistanceKind = "similarity",
    *,
    gallery: EmbeddingSet | None = None,
    unknown: EmbeddingSet | None = None,
    exclude_same: ExcludeSame = None,
    groups: Sequence[str] = (),
    aggregate: Aggregate = "nearest",
    confidence: float = 0.95,
    track: Track = silent,
) -> AuditedThreshold:
    """Measure a threshold as it is, over all pairs and queries.

    Args:
        threshold: of ``distance``, between vectors of length one.
        gallery: ``items`` are then the queries.
        unknown: queries whose classes are in no gallery; else those of ``items`` whose class the gallery
            lacks, else each class in turn is left out.
        groups: metadata columns whose values are groups.
        aggregate: how several items of a class make one score of a query with it.

    Raises:
        InputError: a threshold that no distance has, a column that is not there or is empty in many rows.
    """
    similarity = convert_to_similarity(threshold, distance)
    measured = MeasuredThreshold.prepare(
        items,
        similarity,
        gallery=gallery,
        unknown=unknown,
        exclude_same=exclude_same,
        aggregate=aggregate,
        confidence=confidence,
        track=track,
    )
    fit = items if gallery is None else join_sets(gallery, items)
    instead, reasons = _find_instead(fit, distance, aggregate, track)
    classes = measured.measure_classes() if measured.is_of_pairs else []
    rates = measured.measure()
    audit = Audit(
        threshold=threshold,
        distance=distance,
        similarity=similarity,
        aggregate=aggregate,
        confidence=confidence,
        unknown_queries=int(np.isfinite(measured.unknown_queries.best_other).sum()),
        worst=_select_worst(classes),
        groups=measure_groups(measured, items, groups, unknown),
        instead=instead,
        **rates.model_dump(),
    )
    return AuditedThreshold(audit, measured, items, gallery, reasons)


def _select_worst(classes: Sequence[ClassRates]) -> list[ClassRates]:
    """The classes with the least utility, the worst first, ties by label; none without an error."""
    scored = [(row.utility, row.label, row) for row in classes if row.utility is not None and row.utility < 1]
    return [row for _, _, row in sorted(scored, key=lambda entry: entry[:2])[:WORST]]


def _find_instead(
    fit: EmbeddingSet, distance: DistanceKind, aggregate: Aggregate, track: Track
) -> tuple[dict[str, InsteadThreshold | None], list[str]]:
    """The thresholds that would keep FAR and FPIR 1 %, proven or else estimated, and why one is missing."""
    found: dict[str, InsteadThreshold | None] = {}
    reasons = []
    for key, target in INSTEAD.items():
        rule: Aggregate = aggregate if target.kind == "fpir" else "nearest"
        name = f"{target.kind.upper()} {target.value:.0%}"
        try:
            calibrator = Calibrator.prepare(CalibrationSources(fit), "cosine", rule, "", track=track)
            point = calibrator.calibrate(target.model_copy(update={"aggregate": rule})).point
        except CalibrationRefused as refusal:
            found[key] = None
            reasons.append(f"No threshold can be named that keeps {name}: {refusal}")
            continue
        evidence = point.fit
        kind, missed = target.kind, "fnir" if target.kind == "fpir" else "frr"
        found[key] = InsteadThreshold(
            target=0.01,
            threshold=convert_from_similarity(point.threshold, distance),
            similarity=point.threshold,
            status=point.status,
            rate=getattr(evidence, kind),
            rate_upper=getattr(evidence, f"{kind}_upper"),
            missed=getattr(evidence, missed),
        )
    return found, reasons
