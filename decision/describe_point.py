"""What an operating point does, in numbers and in one sentence: the same wherever a point is shown."""

from __future__ import annotations

from typing import NamedTuple

from api_schemas.operating_point import Evidence, OperatingPoint
from decision.targets import get_endpoint

LEAST_SHOWN = 0.01  # of a thousand: less is no more than an extrapolation


class ShownRates(NamedTuple):
    """Rates of a point on what it was not fitted on, where that was bounded; None where one is not known.

    Attributes:
        false: FPIR of a 1:N point, FAR of a 1:1 point.
        at_most: its upper bound, never below ``false``.
        missed: FNIR, or FRR.
    """

    false: float | None
    at_most: float | None
    missed: float | None


def get_shown_rates(point: OperatingPoint) -> ShownRates:
    """The rates to show: both of the proof where it has a bound of its own, else both of the fit.

    Over folds a proof is of other thresholds, chosen on fewer classes: its FNIR beside the FPIR of the
    point's own would be that of no threshold, and the fit's known queries have chosen nothing. What is shown
    as the most of a proven point is the bound that meets its target, the fit's: the proof's own is wide where
    its classes are few, and stands in the point.
    """
    false, missed = ("fpir", "fnir") if get_endpoint(point.target) == "match" else ("far", "frr")
    proof = point.proof
    bounded = point.fit
    if proof is not None and getattr(proof, f"{false}_upper") is not None:
        bounded = proof
    value, bound = getattr(bounded, false), getattr(bounded, f"{false}_upper")
    unknown = None if proof is None or false != "fpir" else proof.unknown
    if unknown is not None:
        value, bound = unknown.fpir, unknown.fpir_upper
    if point.status == "proven":
        bound = getattr(point.fit, f"{false}_upper")
    sources: list[Evidence] = [bounded, point.fit]
    known = [rate for source in sources if (rate := getattr(source, missed)) is not None]
    at_most = None if bound is None or value is None else max(bound, value)
    return ShownRates(value, at_most, known[0] if known else None)


def describe_point(point: OperatingPoint, noun: str = "queries") -> str:
    """E.g. "of 1,000 queries that are not in the gallery about 10 (at most 30) are matched to someone; of
    1,000 that are, 90 are missed"."""
    rates = get_shown_rates(point)
    if get_endpoint(point.target) == "match":
        first = f"of 1,000 {noun} that are not in the gallery {{}} are matched to someone"
        second = "of 1,000 that are, {} are missed"
    else:
        first = "of 1,000 pairs of two classes {} are accepted"
        second = "of 1,000 pairs of one class, {} are rejected"
    parts = []
    if rates.false is not None:
        at_most = "" if rates.at_most is None else f" (at most {count_of_thousand(rates.at_most)})"
        parts.append(first.format(f"about {count_of_thousand(rates.false)}{at_most}"))
    if rates.missed is not None:
        parts.append(second.format(count_of_thousand(rates.missed)))
    return "; ".join(parts)


def count_of_thousand(rate: float) -> str:
    """Of a thousand: whole numbers from 10 on, one digit below."""
    of_thousand = 1000 * rate
    if 0 < of_thousand < LEAST_SHOWN:
        return f"under {LEAST_SHOWN:g}"
    if of_thousand >= 9.95:
        return f"{of_thousand:,.0f}"
    return f"{of_thousand:.2g}" if of_thousand < 0.95 else f"{of_thousand:.1f}".removesuffix(".0")


def describe_other_classes(point: OperatingPoint) -> str | None:
    """A sentence where the classes of the proof are matched more or less than aimed at, beyond chance.

    A proven point is matched less by design. None without a proof on a set of other classes.
    """
    name, aimed = ("fpir" if get_endpoint(point.target) == "match" else "far"), point.target.value
    proof = point.proof
    if point.target.kind != name or aimed is None or proof is None or getattr(proof, f"{name}_upper") is None:
        return None
    rate, ends = getattr(proof, name), getattr(proof, f"{name}_ci")
    if ends is None or ends[0] <= aimed <= ends[1] or (rate < aimed and point.status == "proven"):
        return None
    kind, instead = ("harder", "stricter") if rate > aimed else ("easier", "looser")
    low, high = (count_of_thousand(end) for end in ends)
    return (
        f"Chosen for {count_of_thousand(aimed)} of 1,000; on the classes of the test it is "
        f"{count_of_thousand(rate)} ({low} to {high}), as they are {kind} to tell apart than those it was "
        f"chosen on. Where deployment is like the test, a {instead} target gives what is wanted."
    )
