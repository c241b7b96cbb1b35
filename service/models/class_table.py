"""Every class of a gallery with its rates, to be sorted, searched and paged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock

import numpy as np

from api_schemas.http.classes import ClassPage, ClassSort, ClassSource, ClassSummary, RatesSource
from api_schemas.operating_point import ClassRates, OperatingPoint
from api_schemas.report import Report
from common.array_types import Float64s, Int64s
from index.search.class_comparison import count_items_of_classes
from index.search.gallery_view import GalleryView


@dataclass(frozen=True, eq=False)
class ClassTable:
    """Classes sorted by label: those of the gallery and those that were measured.

    Attributes:
        items: int64 [c], in the gallery now.
        measured: int64 [c], items that the rates were measured on, 0 for none.
        far, frr, utility: float64 [c], NaN where not measured.
    """

    labels: list[str]
    items: Int64s
    measured: Int64s
    far: Float64s
    frr: Float64s
    utility: Float64s
    rates: RatesSource

    @cached_property
    def _folded(self) -> list[str]:
        return [label.casefold() for label in self.labels]

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {label: row for row, label in enumerate(self.labels)}

    def find(self, label: str) -> ClassSummary | None:
        """A class that was measured, or None."""
        row = self._rows.get(label)
        return None if row is None or not self.measured[row] else self.summarize(row)

    def summarize(self, row: int) -> ClassSummary:
        """The class of a row."""
        return ClassSummary(
            label=self.labels[row],
            items=int(self.items[row]),
            measured_items=int(self.measured[row]),
            far=_get(self.far, row),
            frr=_get(self.frr, row),
            utility=_get(self.utility, row),
        )

    def count_items(self, label: str) -> int:
        """The items of a class in the gallery, 0 for none."""
        row = self._rows.get(label)
        return 0 if row is None else int(self.items[row])

    def sort(self, sort: ClassSort) -> Int64s:
        """Rows, int64 [c], in an order; what is not measured comes last, ties by label."""
        return self._orders[sort]

    def select(self, sort: ClassSort, search: str, offset: int, limit: int) -> ClassPage:
        """A page of the classes whose label holds a text, whatever its case."""
        order = self.sort(sort)
        wanted = search.casefold()
        if wanted:
            holds = np.fromiter(
                (wanted in label for label in self._folded), dtype=bool, count=len(self.labels)
            )
            order = order[holds[order]]
        rows = order[offset : offset + limit]
        return ClassPage(
            classes=[self.summarize(row) for row in rows.tolist()],
            total=len(order),
            measured=int((~np.isnan(self.utility[order])).sum()),
            next_offset=offset + limit if offset + limit < len(order) else None,
            rates=self.rates,
        )

    @cached_property
    def _orders(self) -> dict[ClassSort, Int64s]:
        by_label = np.arange(len(self.labels))
        keys: dict[ClassSort, Float64s | Int64s] = {
            "worst": self.utility,
            "far": -self.far,
            "frr": -self.frr,
            "items": -self.items,
        }
        orders: dict[ClassSort, Int64s] = {"label": by_label}
        for name, key in keys.items():
            orders[name] = np.lexsort([by_label, key])  # NaN sorts last
        return orders


class ClassTables:
    """The tables of a model, each built once for a view of the gallery and a report."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._built: dict[ClassSource, tuple[tuple[object, ...], ClassTable]] = {}

    def get(
        self, source: ClassSource, view: GalleryView, report: Report | None, point: OperatingPoint | None
    ) -> ClassTable:
        """The table of the rates of a report; at the threshold of ``point`` where that has its own."""
        with self._lock:
            made_of = view, report, point
            built = self._built.get(source)
            if built is None or any(a is not b for a, b in zip(built[0], made_of, strict=True)):
                built = made_of, _build(source, view, report, point)
                self._built[source] = built
            return built[1]


def _build(
    source: ClassSource, view: GalleryView, report: Report | None, point: OperatingPoint | None
) -> ClassTable:
    measured: Sequence[ClassRates] = [] if report is None else report.consistency.per_class
    at_threshold = _find_at_threshold(source, report, point)
    if at_threshold is not None:
        measured = at_threshold
    rates = RatesSource(
        source=source,
        at=None if not measured else "range" if at_threshold is None else "threshold",
        operating_point=None if at_threshold is None or point is None else point.id,
        threshold=None if at_threshold is None or point is None else point.threshold,
    )
    present, counts = count_items_of_classes(view)
    by_label = {entry.label: entry for entry in measured}
    labels = sorted(by_label.keys() | set(present))
    sizes = dict(zip(present, counts.tolist(), strict=True))
    found = [by_label.get(label) for label in labels]
    return ClassTable(
        labels=labels,
        items=np.array([sizes.get(label, 0) for label in labels], dtype=np.int64),
        measured=np.array([0 if entry is None else entry.n_items for entry in found], dtype=np.int64),
        far=_collect([None if entry is None else entry.far for entry in found]),
        frr=_collect([None if entry is None else entry.frr for entry in found]),
        utility=_collect([None if entry is None else entry.utility for entry in found]),
        rates=rates,
    )


def _find_at_threshold(
    source: ClassSource, report: Report | None, point: OperatingPoint | None
) -> Sequence[ClassRates] | None:
    """The rates at a point's threshold: its own ones of the hold-out data, or those of a gallery's report."""
    if point is None:
        return None
    if source == "holdout":
        return point.per_class or None
    found = None if report is None else report.at_threshold
    if report is None or found is None or report.score != point.score or found.threshold != point.threshold:
        return None
    return found.per_class


def _collect(values: Sequence[float | None]) -> Float64s:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _get(values: Float64s, row: int) -> float | None:
    value = float(values[row])
    return None if np.isnan(value) else value
