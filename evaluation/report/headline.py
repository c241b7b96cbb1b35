"""The headline figures of a report, and how numbers are written: one list for tables, pages and cards.

A new figure is one line in ``HEADLINES``; it then appears in the terminal's table, on the model card and,
with its key in ``TILES``, on ``report.html`` and the dashboard.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

from api_schemas.operating_point import Score, Target
from api_schemas.report import Report
from decision.targets import get_endpoint
from evaluation.metrics.identification import FPIRS
from evaluation.metrics.opis import OpisSettings
from evaluation.metrics.verification import FARS

Section = Literal["consistency", "verification", "retrieval", "identification"]

NOT_GIVEN = "–"
EPSILON = f"{OpisSettings.epsilon:g}"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


# -- number formats ------------------------------------------------------------------------------------
def format_percent(value: float | None) -> str:
    """A fraction as a percentage: 98.9 %."""
    return NOT_GIVEN if value is None else f"{100 * value:.3g} %"


def format_number(value: float | None) -> str:
    """A score, a utility or an area: 0.9791."""
    return NOT_GIVEN if value is None else f"{value:.4f}"


def format_small(value: float | None) -> str:
    """A small number as people write it: 0.00125, or 2.1 × 10⁻⁵."""
    if value is None:
        return NOT_GIVEN
    if value == 0 or abs(value) >= 0.0001:
        return f"{value:.5f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}"


def format_score(score: Score) -> str:
    """The kind of a score, with its form."""
    return score.kind if score.form is None else f"{score.kind} ({score.form})"


def format_target(target: Target) -> str:
    """The target of a threshold: FPIR 1 %."""
    kind = target.kind.upper()
    return kind if target.value is None else f"{kind} {format_percent(target.value)}"


# -- the figures -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Headline:
    """A figure of a report as people see it.

    Attributes:
        section, field, entry: where the report holds the figure; the entry is the key of a dictionary.
        title, caption: its name, and what it says in plain words.
        interval: the field of its 95 % interval.
    """

    section: Section
    field: str
    title: str
    caption: str
    entry: str = ""
    interval: str = ""
    format_value: Callable[[float | None], str] = format_percent

    @property
    def key(self) -> str:
        """Its name on pages."""
        return f"{self.field}_{self.entry}" if self.entry else self.field

    @property
    def heading(self) -> str:
        """The title with a capital letter."""
        return self.title[0].upper() + self.title[1:]

    def format(self, report: Report) -> str:
        """The figure with its unit."""
        value = getattr(getattr(report, self.section), self.field, None)
        if isinstance(value, dict):
            value = value.get(self.entry)
        return self.format_value(value)

    def format_interval(self, report: Report) -> str:
        """Its interval in words; empty for a figure without one."""
        if not self.interval:
            return ""
        ends = getattr(getattr(report, self.section), self.interval)
        if ends is None:
            return "no interval: too few items"
        return f"95 % interval {self.format_value(ends[0])} to {self.format_value(ends[1])}"

    def describe(self, report: Report) -> str:
        """The caption, with the interval."""
        return "; ".join(part for part in (self.caption, self.format_interval(report)) if part)


SECTIONS: dict[Section, str] = {
    "consistency": "Consistency: does one threshold hold for every class?",
    "verification": "Verification: are these two the same?",
    "retrieval": "Retrieval: what is nearest?",
    "identification": "Identification: who is this, of {gallery.classes:,} classes "
    "({gallery.items:,} items)?",
}


_opis = partial(Headline, "consistency", format_value=format_small)
_verify = partial(Headline, "verification")
_retrieve = partial(Headline, "retrieval")
_identify = partial(Headline, "identification")
HEADLINES: tuple[Headline, ...] = (
    _opis("opis_debiased", "OPIS, debiased", "0 is perfectly even over the classes", interval="opis_ci"),
    _opis("opis", "OPIS", "0 is perfectly even over the classes; not corrected for sampling noise"),
    _opis(
        "opis_logfar_debiased",
        "OPIS, log-FAR, debiased",
        "the figure that compares models",
        interval="opis_logfar_ci",
    ),
    _opis("opis_logfar", "OPIS, log-FAR", "thresholds evenly spaced in log FAR"),
    _opis(
        "epsilon_opis",
        f"ε-OPIS (ε = {EPSILON})",
        f"the gap between the best and the worst {format_percent(float(EPSILON))} of classes",
        EPSILON,
    ),
    _verify("eer", "equal error rate (EER)", "false acceptance = false rejection"),
    _verify(
        "auc", "AUC", "how often a pair of one class scores above a pair of two", format_value=format_number
    ),
    *(
        _verify(
            "tar_at_far", f"accepted at FAR {format_percent(float(far))}", "of the pairs of one class", far
        )
        for far in FARS
    ),
    _retrieve("recall_at_1", "recall@1", "the nearest is of the same class"),
    _retrieve("recall_at_10", "recall@10", "one of the ten nearest is of the same class"),
    _retrieve("r_precision", "R-precision", "of the R nearest, those of the same class"),
    _retrieve("map_at_r", "MAP@R", "how well classes rank together"),
    *(
        _identify(
            "fnir_at_fpir", f"missed at FPIR {format_percent(float(fpir))}", "of the known queries", fpir
        )
        for fpir in FPIRS
    ),
    _identify(
        "auroc",
        "AUROC of known against unknown",
        "how often a known query scores above an unknown one",
        format_value=format_number,
    ),
)

TILES = ("opis_debiased", "eer", "tar_at_far_0.01", "recall_at_1", "map_at_r")


def select_tiles(report: Report) -> list[Headline]:
    """The figures shown large; the plain OPIS where classes are too small for the debiased one."""
    by_key = {headline.key: headline for headline in HEADLINES}
    tiles = [by_key[key] for key in TILES]
    if report.consistency.opis_debiased is None:
        tiles[TILES.index("opis_debiased")] = by_key["opis"]
    return tiles


# -- the worst classes, and what a point is judged by ------------------------------------------------
class WorstClass(NamedTuple):
    """Means of a class over the calibration range; ``below_mean``: the mean utility of all, less its own."""

    label: str
    n_items: int
    far: float | None
    frr: float | None
    utility: float
    below_mean: float

    def format(self) -> tuple[str, str, str, str, str]:
        """Class, items, FAR, FRR, utility (``WORST_HEAD``)."""
        return (
            self.label,
            f"{self.n_items:,}",
            format_percent(self.far),
            format_percent(self.frr),
            format_number(self.utility),
        )


WORST_HEAD = ("class", "items", "FAR", "FRR", "utility")


def select_worst_classes(report: Report, n: int) -> list[WorstClass]:
    """The classes with the least utility over the calibration range, the worst first, ties by label."""
    scored = [(row.utility, row) for row in report.consistency.per_class if row.utility is not None]
    if not scored:
        return []
    mean = sum(utility for utility, _ in scored) / len(scored)
    ordered = sorted(scored, key=lambda pair: (pair[0], pair[1].label))[:n]
    return [
        WorstClass(row.label, row.n_items, row.far, row.frr, utility, mean - utility)
        for utility, row in ordered
    ]


def select_rates(target: Target) -> tuple[str, str]:
    """The two rates of its evidence that a point is judged by: false acceptance and false rejection."""
    return ("fpir", "fnir") if get_endpoint(target) == "match" else ("far", "frr")
