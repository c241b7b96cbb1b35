"""The headline figures of a report, and how numbers are written: one list for tables, pages and cards.

A new figure is one line in ``HEADLINES``; it then stands in the terminal's table, on the model card and,
with its key in ``TILES``, on ``report.html`` and the dashboard.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from api_schemas.operating_point import Target
from api_schemas.report import Report
from decision.targets import get_endpoint
from evaluation.metrics.identification import FPIRS
from evaluation.metrics.verification import FARS

Section = Literal["consistency", "verification", "retrieval", "identification"]

NOT_GIVEN = "–"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


# -- how numbers are written -------------------------------------------------------------------------
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
    return f"{mantissa} × 10{str(int(exponent)).translate(_RAISED)}"


def format_target(target: Target) -> str:
    """What a threshold was asked to keep: FPIR 1 %."""
    kind = target.kind.upper()
    return kind if target.value is None else f"{kind} {format_percent(target.value)}"


# -- the figures -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Headline:
    """A figure of a report as people see it.

    Attributes:
        key: its name on pages.
        section: the part of the report that holds it.
        title, aside: what it is called, and what it says in plain words.
        format_value: the unit.
        read: the figure of the section; None where the data could not give it.
        read_interval: its 95 % interval.
    """

    key: str
    section: Section
    title: str
    aside: str
    format_value: Callable[[float | None], str]
    read: Callable[[Any], float | None]
    read_interval: Callable[[Any], tuple[float, float] | None] | None = None

    @property
    def heading(self) -> str:
        """The title with a capital letter."""
        return self.title[0].upper() + self.title[1:]

    def format(self, report: Report) -> str:
        """The figure with its unit."""
        section = getattr(report, self.section)
        return self.format_value(None if section is None else self.read(section))

    def format_interval(self, report: Report) -> str:
        """Its interval in words; empty for a figure without one."""
        if self.read_interval is None:
            return ""
        ends = self.read_interval(getattr(report, self.section))
        if ends is None:
            return "no interval: too few items"
        return f"95 % interval {self.format_value(ends[0])} to {self.format_value(ends[1])}"

    def describe(self, report: Report) -> str:
        """The aside, with the interval."""
        return "; ".join(part for part in (self.aside, self.format_interval(report)) if part)


SECTIONS: dict[Section, str] = {
    "consistency": "Consistency: does one threshold hold for every class?",
    "verification": "Verification: are these two the same?",
    "retrieval": "Retrieval: what is nearest?",
    "identification": "Identification: who is this, of {gallery.classes:,} classes "
    "({gallery.items:,} items)?",
}


def _read_tar(far: str) -> Callable[[Any], float | None]:
    return lambda verification: verification.tar_at_far.get(far)


def _read_fnir(fpir: str) -> Callable[[Any], float | None]:
    return lambda identification: identification.fnir_at_fpir.get(fpir)


HEADLINES: tuple[Headline, ...] = (
    Headline(
        "opis_debiased", "consistency", "OPIS, debiased", "0 is perfectly even over the classes",
        format_small, lambda c: c.opis_debiased, lambda c: c.opis_ci,
    ),
    Headline(
        "opis", "consistency", "OPIS", "0 is perfectly even over the classes; chance is not taken away",
        format_small, lambda c: c.opis,
    ),
    Headline(
        "opis_logfar_debiased", "consistency", "OPIS, log-FAR, debiased", "the figure that compares models",
        format_small, lambda c: c.opis_logfar_debiased, lambda c: c.opis_logfar_ci,
    ),
    Headline(
        "opis_logfar", "consistency", "OPIS, log-FAR", "strict thresholds weigh like loose ones",
        format_small, lambda c: c.opis_logfar,
    ),
    Headline(
        "epsilon_opis", "consistency", "ε-OPIS", "the gap between the best and the worst classes",
        format_small, lambda c: next(iter(c.epsilon_opis.values()), None),
    ),
    Headline(
        "eer", "verification", "equal error rate (EER)", "false acceptance = false rejection",
        format_percent, lambda v: v.eer,
    ),
    Headline(
        "auc", "verification", "AUC", "how often a pair of one class scores above a pair of two",
        format_number, lambda v: v.auc,
    ),
    *(
        Headline(
            f"tar_at_far_{far}", "verification", f"accepted at FAR {format_percent(float(far))}",
            "of the pairs of one class", format_percent, _read_tar(far),
        )
        for far in FARS
    ),
    Headline(
        "recall_at_1", "retrieval", "recall@1", "the nearest is of the same class",
        format_percent, lambda r: r.recall_at_1,
    ),
    Headline(
        "recall_at_10", "retrieval", "recall@10", "one of the ten nearest is of the same class",
        format_percent, lambda r: r.recall_at_10,
    ),
    Headline(
        "r_precision", "retrieval", "R-precision", "of the R nearest, those of the same class",
        format_percent, lambda r: r.r_precision,
    ),
    Headline(
        "map_at_r", "retrieval", "MAP@R", "how well classes rank together",
        format_percent, lambda r: r.map_at_r,
    ),
    *(
        Headline(
            f"fnir_at_fpir_{fpir}", "identification", f"missed at FPIR {format_percent(float(fpir))}",
            "of the known queries", format_percent, _read_fnir(fpir),
        )
        for fpir in FPIRS
    ),
    Headline(
        "auroc", "identification", "AUROC of known against unknown",
        "how often a known query scores above an unknown one", format_number, lambda i: i.auroc,
    ),
)  # fmt: skip

TILES = ("opis_debiased", "eer", "tar_at_far_0.01", "recall_at_1", "map_at_r")


def select_tiles(report: Report) -> list[Headline]:
    """The figures shown large; the plain OPIS stands in where classes are too small for the debiased one."""
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
