"""Whether class evidence decides a 1:N search, and in which form: chosen on classes it was not fitted on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from common.array_types import Bools, Float32s, Float64s, Int64s
from common.progress import Track, silent
from embeddings.embedding_set import EmbeddingSet
from evaluation.calibration.class_evidence.evidence_trials import CrossFittedEvidence
from evaluation.calibration.class_evidence.fit_class_evidence import PRIORS, EvidenceFitter, EvidenceForm
from evaluation.calibration.scores.density_score import LEAST_COHORT, DensityFitter
from evaluation.metrics.class_bootstrap import draw_classes
from evaluation.pairs.exclusions import ExcludeSame

FPIRS = (0.01, 0.03, 0.1)  # that forms are compared at
REPLICATES = 200
LEAST_RATE = 0.005  # added to an FNIR before its logarithm is taken
SURELY = 0.95  # quantile over resampled classes at which a form must not be worse than the nearest item
NOT_WORSE = 1.1  # the ratio of FNIR up to which it is not
GAIN = 0.95  # the ratio from which on it is worth its class model
LEAST_CLASSES = 10  # of two items or more
FEW_CLASSES = 80  # below it weights are fitted at the strict prior alone


@dataclass(frozen=True, eq=False)
class ChosenEvidence:
    """A form with the cohort it needs; None where the nearest item decides, and in words why.

    ``is_sure``: resampled classes say that the form is not worse than the nearest item.
    """

    scorer: CrossFittedEvidence | None
    cohort: EmbeddingSet | None
    reason: str
    is_sure: bool = False


@dataclass(frozen=True, eq=False)
class DrawnScores:
    """Scores of probes with the classes of a gallery.

    Attributes:
        scores: float32 [q, c].
        own: int64 [q]: the column of each probe's class.
    """

    scores: Float32s
    own: Int64s

    def measure_fnir(self, kept: Bools, weights: Float64s) -> list[float]:
        """FNIR at FPIRS among the classes that are kept, bool [c]; a probe weighs as its class, float [c]."""
        rows = np.flatnonzero(kept[self.own])
        scores, own = self.scores[rows], self.own[rows]
        at = np.arange(len(rows)), own
        genuine = scores[at]
        others = np.where(kept[None, :], scores, np.float32(-np.inf))
        others[at] = -np.inf
        best = others.max(axis=1)
        of_rows = weights[own]
        order = np.argsort(-best, kind="stable")
        matched = np.cumsum(of_rows[order])
        decisive = np.where(genuine > best, genuine, -np.inf)
        rates = []
        for fpir in FPIRS:
            refused = min(int(np.searchsorted(matched, fpir * matched[-1], side="right")), len(order) - 1)
            missed = ~(decisive > best[order[refused]])
            rates.append(float(of_rows @ missed / of_rows.sum()))
        return rates


def choose_evidence(
    fit: EmbeddingSet,
    training: EmbeddingSet | None = None,
    others: EmbeddingSet | None = None,
    *,
    references: int | None = None,
    required: bool = False,
    vectors: int = 1,
    exclude_same: ExcludeSame = None,
    seed: int = 0,
    track: Track = silent,
) -> ChosenEvidence:
    """The form of class evidence that a 1:N search decides by, or the nearest item where none is sure.

    Forms are compared by their FNIR at ``FPIRS``, in galleries and probes of the classes of ``fit``, by
    scores that were fitted without the classes of both ends. The best one is taken where its FNIR, as a
    geometric mean, is below GAIN times the nearest item's, and in SURELY of the resamplings of these classes
    not above NOT_WORSE times that.

    Args:
        training: items of further classes; those that are in ``fit`` or ``others`` are left out.
        others: items that points are proven on.
        references: items that a class of the gallery has; half of the class's own unless given.
        required: the best form is taken, whatever the comparison says.
        vectors: of a query.
        exclude_same: what a query does not share with the gallery's items of its class.
    """
    n = int((np.bincount(fit.codes) > 1).sum())
    if n < LEAST_CLASSES:
        return _refuse(n)
    training = _leave_out(training, fit, others)
    cohort = None
    if training is not None and len(training) >= LEAST_COHORT and len(training.classes) > 1:
        cohort = DensityFitter().draw_cohort(training, seed)
    fitter = EvidenceFitter(
        fit, training, cohort, references, seed, track, vectors=vectors, exclude_same=exclude_same
    )
    n = fitter.count_known_classes()
    if n < LEAST_CLASSES:
        return _refuse(n)
    nearest = [DrawnScores(draw.features["best"].astype(np.float32), draw.own) for draw in fitter.draws]
    plain = _measure(nearest)
    forms = list_forms(fitter)
    measured = [
        (form, *_fit_form(fitter, form)) for form in track(forms, "class evidence: forms", len(forms))
    ]
    form, fitted, drawn = min(measured, key=lambda candidate: _compare(_measure(candidate[2]), plain))
    rates = _measure(drawn)
    is_better = _compare(rates, plain) < np.log(GAIN)
    is_sure = is_better and _bound_ratio(drawn, nearest, seed) < np.log(NOT_WORSE)
    said = ", ".join(
        f"{100 * own:.3g} % (nearest {100 * other:.3g} %) at FPIR {100 * fpir:g} %"
        for own, other, fpir in zip(rates, plain, FPIRS, strict=True)
    )
    if required or is_sure:
        taken = "surely not worse" if is_sure else "as requested"
        reason = f"by class evidence ({form}), {taken}: FNIR of unseen classes {said}"
        return ChosenEvidence(fitted, cohort if fitted.has_densities else None, reason, is_sure)
    return ChosenEvidence(
        None,
        None,
        f"by the nearest item: class evidence ({form}) is not surely as good, FNIR of unseen classes {said}",
    )


def _refuse(n: int) -> ChosenEvidence:
    """The nearest item decides, as so few classes can be fitted on."""
    return ChosenEvidence(
        None,
        None,
        f"by the nearest item: class evidence is fitted on {LEAST_CLASSES} classes of two items or more, "
        f"found {n} whose items are no copies",
    )


def list_forms(fitter: EvidenceFitter) -> list[EvidenceForm]:
    """The forms to choose from: few, since the choice is made on few classes.

    Where covariances can be estimated forms without them are not tried, and of their classes all are taken:
    on sentences, characters and glyphs these were as good as any other, and a choice among more was worse.
    PLDA alone is one where classes have one item, whose mean and tightness say nothing. At even odds a loose
    class may be matched by most unknown queries, and of few classes one more or less decides the FPIR: their
    weights are strict.
    """
    classes = "fit" if fitter.training is None else "both"
    sources = [source for source in fitter.pldas if source.classes == classes]
    forms = [EvidenceForm("similarity-plda", False, source) for source in sources]
    if fitter.references == 1:
        forms += [EvidenceForm("plda", False, source) for source in sources]
    if fitter.cohort is not None:
        forms += [EvidenceForm("all", True, source) for source in sources]
        forms.append(EvidenceForm("similarity-density", stretched=True))
    forms = forms or [EvidenceForm("similarity"), EvidenceForm("similarity", stretched=True)]
    several = PRIORS if len(fitter.fit.classes) >= FEW_CLASSES else PRIORS[1:]
    priors = {form: PRIORS[:1] if len(form.features) == 1 else several for form in forms}
    return [replace(form, prior=prior) for form in forms for prior in priors[form]]


def _fit_form(fitter: EvidenceFitter, form: EvidenceForm) -> tuple[CrossFittedEvidence, list[DrawnScores]]:
    fitted = fitter.fit_form(form)
    scores = fitter.score_draws(fitted, form)
    return fitted, [
        DrawnScores(of_draw, draw.own) for of_draw, draw in zip(scores, fitter.draws, strict=True)
    ]


def _leave_out(training: EmbeddingSet | None, *sets: EmbeddingSet | None) -> EmbeddingSet | None:
    """Training items of classes that are in none of the sets; None where nothing is left."""
    if training is None:
        return None
    known = np.concatenate([items.classes for items in sets if items is not None])
    kept = ~np.isin(training.labels, known)
    if not kept.any():
        return None
    return training if kept.all() else training.subset(np.flatnonzero(kept))


def _measure(drawn: list[DrawnScores]) -> list[float]:
    """Mean FNIR over galleries and probes, at each of FPIRS."""
    rates = [
        draw.measure_fnir(np.ones(draw.scores.shape[1], dtype=bool), np.ones(draw.scores.shape[1]))
        for draw in drawn
    ]
    return [float(rate) for rate in np.mean(rates, axis=0)]


def _compare(rates: list[float], others: list[float]) -> float:
    """The mean over FPIRS of the logarithm of the ratio of FNIR."""
    return float(np.mean(np.log(np.array(rates) + LEAST_RATE) - np.log(np.array(others) + LEAST_RATE)))


def _bound_ratio(drawn: list[DrawnScores], nearest: list[DrawnScores], seed: int) -> float:
    """The quantile SURELY, over resampled classes, of the form's FNIR against that of the nearest item."""
    ratios = []
    for weights in draw_classes(drawn[0].scores.shape[1], seed, REPLICATES):
        kept = weights > 0
        sides = [[draw.measure_fnir(kept, weights) for draw in draws] for draws in (drawn, nearest)]
        ratios.append(_compare(*(np.mean(side, axis=0).tolist() for side in sides)))
    return float(np.quantile(ratios, SURELY))
