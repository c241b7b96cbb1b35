"""A ranked list of items whose label their neighbours contradict, each with the reason in words.

The rank is by how much nearer the five nearest items of another label are than the five nearest of the item's
own: a mean of five, because some of them may themselves be labelled wrongly, and the nearest ones, because a
class need not be one cloud. Of items that a run was trained on, it is the mean of that and of how they stood
while the network learnt: in the end it has learnt some wrong labels. A list to look at: a label that is right
but unusual stands in it, too.
"""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from api_schemas.label_audit import FindingKind, LabelAudit, LabelFinding
from common.array_types import Bools, Float32s, Float64s, Int64s
from common.errors import InputError
from common.label_spelling import find_unknown_labels, group_spellings
from common.progress import Track, silent
from decision.scorers import CosineScorer, Scorer, accepts
from embeddings.embedding_set import EmbeddingSet
from embeddings.similarity import compute_pair_similarities
from evaluation.label_audit.neighbour_evidence import (
    AGREEING,
    NEAREST,
    NeighbourEvidence,
    gather_evidence,
)
from evaluation.metrics.data_faults import find_contradictions

MOST_FINDINGS = 10_000
USUAL_FAR = 0.01
SAMPLED_PAIRS = 200_000
KINDS: tuple[FindingKind, ...] = (
    "other_label_nearer",
    "copy_of_other_label",
    "near_copy_of_other_label",
    "outlier",
)


def audit_labels(
    items: EmbeddingSet,
    *,
    threshold: float | None = None,
    threshold_from: str = "the given threshold",
    scorer: Scorer | None = None,
    training_margins: Float32s | None = None,
    model_hash: str = "",
    most: int = MOST_FINDINGS,
    track: Track = silent,
) -> LabelAudit:
    """Find items that are nearer to another label, copies under two labels, and items near to none.

    Args:
        threshold: from which pairs are accepted as the same, in ``scorer``'s score; without one, that which
            accepts 1 % of random pairs of two labels.
        threshold_from: where it comes from, in words.
        training_margins: float32 [n], of each item, how much more alike it was to its own class than to any
            other while the network learnt (area under the margin); NaN for those it did not learn from.
        most: findings in the list; the others are counted.

    Raises:
        InputError: fewer than two labels.
    """
    if len(items.classes) < 2:
        raise InputError("A label audit compares labels, and needs items of at least two.")
    order = np.argsort(items.ids, kind="stable")  # so that the order they came in changes nothing
    items = items.subset(order)
    margins = np.full(len(items), np.nan) if training_margins is None else training_margins[order]
    used = CosineScorer() if scorer is None else scorer
    if threshold is None:
        threshold = estimate_threshold(items, used)
        threshold_from = f"the score that {100 * USUAL_FAR:g} % of the pairs of two labels reach"
    evidence = gather_evidence(items, track)
    scores = _score_nearest(items, evidence, used)
    copies, near_copies = _find_copies(items)
    # alone in its label there is no own one to compare with: to be as near as the same is would be suspicious
    alone = np.isnan(evidence.own)
    suspicion = np.where(alone, evidence.other - _convert_threshold(threshold, used), evidence.margin)
    suspicion = np.where(np.isnan(margins), suspicion, (suspicion - margins) / 2)
    by_kind = {
        "other_label_nearer": suspicion > 0,
        "copy_of_other_label": copies >= 0,
        "near_copy_of_other_label": (near_copies >= 0) & (copies < 0),
        "outlier": _is_outlier(evidence, threshold, used),
    }
    flagged = np.flatnonzero(np.logical_or.reduce([by_kind[kind] for kind in KINDS]))
    ranked = flagged[
        np.lexsort(
            (
                items.ids[flagged],
                evidence.nearest[flagged],
                -np.nan_to_num(suspicion[flagged], nan=-np.inf, posinf=9, neginf=-9),
                by_kind["outlier"][flagged] & ~(np.nan_to_num(suspicion[flagged], nan=-1) > 0),
            )
        )
    ]
    writer = _Writer(
        items,
        evidence,
        suspicion,
        scores,
        threshold,
        np.where(copies >= 0, copies, near_copies),
        margins,
    )
    findings = [
        writer.write(rank, int(row), [kind for kind in KINDS if by_kind[kind][row]])
        for rank, row in enumerate(ranked[:most], start=1)
    ]
    labels = items.classes.tolist()
    return LabelAudit(
        created_at=datetime.now(UTC),
        model_hash=model_hash,
        items=len(items),
        labels=len(labels),
        threshold=float(np.float32(threshold)),
        threshold_from=threshold_from,
        counts={kind: int(by_kind[kind].sum()) for kind in KINDS},
        spellings=group_spellings(labels),
        unknown_labels=find_unknown_labels(labels),
        left_out=max(0, len(ranked) - most),
        findings=findings,
    )


def estimate_threshold(items: EmbeddingSet, scorer: Scorer) -> float:
    """The score that one in a hundred random pairs of two labels reach."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, len(items), (2, SAMPLED_PAIRS))
    different = items.codes[a] != items.codes[b]
    scores = _score_pairs(items, a[different], b[different], scorer)
    return float(np.quantile(scores, 1 - USUAL_FAR))


def _score_pairs(items: EmbeddingSet, a: Int64s, b: Int64s, scorer: Scorer) -> Float32s:
    scores = np.empty(len(a), dtype=np.float32)
    for start in range(0, len(a), 8192):
        part = slice(start, start + 8192)
        first, second = items.vectors[a[part]], items.vectors[b[part]]
        similarities = compute_pair_similarities(first, second)
        if scorer.is_similarity:
            scores[part] = similarities
        else:
            densities = scorer.compute_densities(first), scorer.compute_densities(second)
            scores[part] = scorer(similarities, *densities)
    return scores


def _score_nearest(items: EmbeddingSet, evidence: NeighbourEvidence, scorer: Scorer) -> Float32s:
    """float32 [n]: the score of each item with its nearest of the other label, NaN without one."""
    scores = np.full(len(items), np.nan, dtype=np.float32)
    rows = np.flatnonzero(evidence.nearest_other >= 0)
    scores[rows] = _score_pairs(items, rows, evidence.nearest_other[rows], scorer)
    return scores


def _find_copies(items: EmbeddingSet) -> tuple[Int64s, Int64s]:
    """int64 [n] each: a row of another label that is the same vector, and one that is a near copy; -1."""
    contradictions = find_contradictions(items)
    found = np.full((2, len(items)), -1, dtype=np.int64)
    for which, groups in enumerate((contradictions.same, contradictions.near)):
        for rows in groups:
            codes = items.codes[rows]
            for row, code in zip(rows, codes, strict=True):
                found[which, row] = rows[np.flatnonzero(codes != code)[0]]
    return found[0], found[1]


def _convert_threshold(threshold: float, scorer: Scorer) -> float:
    """The similarity that items of a label of one are measured by: the threshold, or that of equal items."""
    return threshold if scorer.is_similarity else 1.0


def _is_outlier(evidence: NeighbourEvidence, threshold: float, scorer: Scorer) -> Bools:
    """bool [n]: no item at all is as near as the threshold; for a density score, the least near hundredth."""
    if scorer.is_similarity:
        return ~accepts(evidence.nearest.astype(np.float32), threshold)
    return np.asarray(evidence.nearest < np.quantile(evidence.nearest, 0.01))


class _Writer:
    """Findings of items, in words."""

    def __init__(
        self,
        items: EmbeddingSet,
        evidence: NeighbourEvidence,
        suspicion: Float64s,
        scores: Float32s,
        threshold: float,
        copies: Int64s,
        margins: Float32s | Float64s,
    ) -> None:
        self.items, self.evidence, self.suspicion = items, evidence, suspicion
        self.scores, self.threshold, self.copies, self.margins = scores, threshold, copies, margins
        self.sizes = np.bincount(items.codes)

    def write(self, rank: int, row: int, kinds: list[FindingKind]) -> LabelFinding:
        """The finding of one item."""
        items, evidence = self.items, self.evidence
        partner = int(evidence.nearest_other[row])
        has_other = partner >= 0
        score = float(self.scores[row]) if has_other else None
        is_copy = self.copies[row] >= 0
        if is_copy:
            partner, has_other = int(self.copies[row]), True
            score = None if partner != evidence.nearest_other[row] else score
        return LabelFinding(
            rank=rank,
            id=str(items.ids[row]),
            label=str(items.labels[row]),
            kinds=kinds,
            reason=" ".join(self._explain(row, kinds)),
            suspicion=_read(self.suspicion[row]),
            suggested_label=str(items.classes[evidence.other_code[row]])
            if "other_label_nearer" in kinds
            else (str(items.labels[partner]) if is_copy else None),
            own_similarity=_read(evidence.own[row]),
            other_similarity=_read(evidence.other[row]),
            agreement=_read(evidence.agreement[row]),
            training_margin=_read(self.margins[row]),
            nearest_id=str(items.ids[partner]) if has_other else None,
            nearest_label=str(items.labels[partner]) if has_other else None,
            nearest_score=score,
            accepted=None if score is None else bool(accepts(np.float32(score), self.threshold)),
        )

    def _explain(self, row: int, kinds: list[FindingKind]) -> list[str]:
        items, evidence = self.items, self.evidence
        sentences = []
        if "copy_of_other_label" in kinds or "near_copy_of_other_label" in kinds:
            twin = self.copies[row]
            what = "The same vector as" if "copy_of_other_label" in kinds else "Nearly the same vector as"
            sentences.append(f"{what} '{items.ids[twin]}', which is labelled '{items.labels[twin]}'.")
        if "other_label_nearer" in kinds:
            sentences.append(self._compare_labels(row))
            if not np.isnan(self.margins[row]):
                sentences.append(self._describe_training(row))
            if accepts(self.scores[row], self.threshold):
                sentences.append(
                    f"With the nearest of them, '{items.ids[evidence.nearest_other[row]]}', it would be "
                    f"accepted as the same: score {self.scores[row]:.3f}, threshold {self.threshold:.3f}."
                )
        if "outlier" in kinds:
            sentences.append(
                f"No item of any label is near: the nearest has similarity {evidence.nearest[row]:.3f}."
            )
        return sentences

    def _describe_training(self, row: int) -> str:
        margin = self.margins[row]
        nearer = "its own class than to any other" if margin > 0 else "another class than to its own"
        return f"While the network learnt it was nearer to {nearer}, by {abs(margin):.3f} on average."

    def _compare_labels(self, row: int) -> str:
        evidence = self.evidence
        other, code = self.items.classes[evidence.other_code[row]], self.items.codes[row]
        n_other = min(NEAREST, int(self.sizes[evidence.other_code[row]]))
        nearest = f"Its {n_other} nearest items" if n_other > 1 else "The one item"
        first = f"{nearest} of '{other}' {_are(n_other)} at similarity {evidence.other[row]:.3f}"
        if np.isnan(evidence.own[row]):
            return f"{first}, and no other item has its own label."
        n_own = min(NEAREST, int(self.sizes[code]) - 1)
        own = f"the {n_own} nearest" if n_own > 1 else "the one other"
        agreeing = round(evidence.agreement[row] * AGREEING)
        return (
            f"{first}, {own} of its own label at {evidence.own[row]:.3f}; "
            f"{agreeing or 'none'} of its {AGREEING} nearest items "
            f"{'has' if agreeing == 1 else 'have'} its label."
        )


def _are(n: int) -> str:
    return "are" if n > 1 else "is"


def _read(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
