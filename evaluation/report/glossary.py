"""The terms of reports and pages in plain words; docs/glossary.md holds the same sentences."""

from __future__ import annotations

from api_schemas.operating_point import Status, Target

TERMS = {
    "OPIS": "How much the classes differ at one threshold: 0 means that it serves all of them equally well.",
    "debiased": "Corrected for the part that chance alone brings when classes have few items.",
    "interval": "The range in which the true value plausibly lies, from drawing the classes at random many "
    "times.",
    "EER": "Equal error rate: the error at the threshold where false acceptances and false rejections are "
    "equally frequent.",
    "TAR": "True acceptance rate: of 1,000 pairs that are the same, how many are accepted.",
    "FAR": "False acceptance rate: of 1,000 pairs that are not the same, how many are taken to be the same.",
    "FRR": "False rejection rate: of 1,000 pairs that are the same, how many are turned away.",
    "FPIR": "False positive identification rate: of 1,000 queries of no class in the gallery, how many "
    "are matched to one.",
    "FNIR": "False negative identification rate: of 1,000 queries of someone in the gallery, how many are "
    "missed or matched to someone else.",
    "recall@1": "Of 1,000 queries, for how many the nearest item is of their class.",
    "MAP@R": "Like R-precision, but right items count more the nearer the top they stand.",
    "R-precision": "Of the R nearest items, the fraction that is of the query's class, where R is how many "
    "there are.",
    "utility": "How well one threshold serves one class: 1 when it accepts all its pairs and no others, 0 "
    "when it fails.",
    "calibration range": "The thresholds that OPIS looks at: from 1 % to 10 % false acceptances over all "
    "pairs.",
    "worst classes": "The classes that one threshold serves least well; look at them before trusting a mean.",
    "hold-out": "Data that the model and the threshold have never seen.",
    "class": "All items that are the same thing, for instance all pictures of one character; its name is the"
    " label.",
    "gallery": "The stored items that a query is compared with.",
    "score": "The number that is compared with the threshold; higher is more alike.",
    "threshold": "The score from which on two items are taken to be the same.",
    "operating point": "A threshold that is frozen together with the proof of what it does, for one model.",
    "target": "The error rate that a threshold must keep, for instance at most 1 % false matches.",
    "proof": "What the threshold did on classes that it was not chosen on.",
    "folds": "The proof of a file without spare classes: a fifth of the classes is left out in turn, the"
    " threshold chosen on the others and measured on it.",
    "upper bound": "The highest rate that is still plausible; it, not the estimate, must keep the target.",
    "confidence": "How often such a bound holds, if the classes had been other ones: 95 % unless said "
    "otherwise.",
    "model hash": "The fingerprint of a model; a threshold of another model is refused.",
}


def describe_target(target: Target, status: Status = "proven") -> str:
    """A target as a sentence without terms: what a proven threshold keeps to, and others are expected to."""
    if target.value is None:
        return "As many pairs that are not the same are accepted as pairs that are the same are turned away."
    total, count = _count_per_thousand(target.value)
    some = f"{'at most' if status == 'proven' else 'about'} {count}"
    return {
        "fpir": f"Of {total} queries of no class in the gallery, {some} are matched to one.",
        "far": f"Of {total} pairs that are not the same, {some} are taken to be the same.",
        "frr": f"Of {total} pairs that are the same, {some} are turned away.",
        "cost": "The expected cost of wrong decisions is as low as one threshold can make it.",
    }[target.kind]


def _count_per_thousand(fraction: float) -> tuple[str, str]:
    """A fraction as a count in the first of 1,000, 10,000, ... in which it is at least one."""
    total = 1_000
    while 0 < fraction * total < 1:
        total *= 10
    return f"{total:,}", f"{fraction * total:.3g}"
