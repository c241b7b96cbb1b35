"""Before training: which operating points a split into parts will carry, and which split would carry more.

Nothing is known of the embeddings yet, so the answer counts classes alone: what ``calibrate`` asks for
whatever the vectors are. With the vectors, ``plan_data`` says what a target takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.calibration.pair_thresholds import MIN_PAIRS
from evaluation.calibration.sets.sources import LEAST_CLASSES, LEAST_ESTIMATED, POOLED_BELOW

FRACTIONS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)  # of the classes, for validation and test together
LEAST_TRAINING = 0.5  # of the classes
FAR_RUNGS = (0.01, 0.001, 0.0001)
ROUNDING = 1e-9


@dataclass(frozen=True)
class SplitPlan:
    """What a split carries.

    Attributes:
        proven, estimated: whether points can be proven, and estimated.
        strictest_far: the strictest usual FAR that enough impostor pairs support a bound of; None for none.
        sentences: the answer in words, with the split that would do where this one does not.
        suggested: that split, as fractions of the classes for training, validation and test.
    """

    proven: bool
    estimated: bool
    strictest_far: float | None
    sentences: list[str]
    suggested: tuple[float, float, float] | None = None


def plan_split(n_classes: int, fractions: Sequence[float], items_per_class: float) -> SplitPlan:
    """The points that a split by class will carry.

    Args:
        n_classes: classes of the data.
        fractions: of the classes for training, validation and test.
        items_per_class: on average.
    """
    validation, test = (int(fraction * n_classes + ROUNDING) for fraction in fractions[1:])
    fit = validation if validation >= POOLED_BELOW or not test else validation + test
    pooled = fit > validation
    each = max(1.0, items_per_class)
    pairs = fit * (fit - 1) / 2 * each**2
    far = next((far for far in reversed(FAR_RUNGS) if pairs * far >= 2 * MIN_PAIRS), None)
    proven, estimated = fit >= LEAST_CLASSES, fit >= LEAST_ESTIMATED
    what = (
        f"{fit} classes to choose thresholds on ({validation} of validation"
        f"{f' and {test} of test, fold by fold' if pooled else ''})"
    )
    if not estimated:
        sentences = [
            f"{what}: too few for any operating point, which takes {LEAST_ESTIMATED} for an estimate and "
            f"{LEAST_CLASSES} for a proof; without more, bring a cohort of other people's vectors."
        ]
    elif not proven:
        sentences = [
            f"{what}: operating points will be estimated, with wide intervals; a proof takes {LEAST_CLASSES}."
        ]
    else:
        strictest = "" if far is None else f", proven ones down to about FAR {100 * far:g} %"
        sentences = [f"{what}: operating points will be estimated and proven{strictest}."]
    suggested = None if proven else _suggest(n_classes)
    if suggested is not None:
        parts = " / ".join(f"{part:g}" for part in suggested)
        sentences.append(f"A split of {parts} would carry proven points with these {n_classes} classes.")
    elif not proven:
        needed = int(LEAST_CLASSES / (1 - LEAST_TRAINING))
        sentences.append(f"Proven points take about {needed} classes in all: half of them for training.")
    return SplitPlan(proven, estimated, far if proven else None, sentences, suggested)


def _suggest(n_classes: int) -> tuple[float, float, float] | None:
    """The split with the most training that is proven."""
    for held_out in FRACTIONS:
        validation = round(0.7 * held_out, 2)
        test = round(held_out - validation, 2)
        of_validation, of_test = int(validation * n_classes + ROUNDING), int(test * n_classes + ROUNDING)
        if of_validation + of_test >= LEAST_CLASSES and of_test >= 2:
            return round(1 - held_out, 2), validation, test
    return None
