"""Rows of numbers: table rows, standardised column by column, and vectors of another model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from api_schemas.preprocessing import TableInput, VectorInput
from common.array_types import Float32s, Float64s
from encoder.inputs.preprocessing import LIMITS, InputLimits, Preprocessing, RawInput, RefusedInput


@dataclass(frozen=True)
class RowPreprocessing(Preprocessing):
    """Rows of finite numbers, as many in each, that fit into float32."""

    layout = "row"
    takes = "rows of {0} numbers"

    def prepare(self, inputs: Iterable[RawInput], first: int = 0, limits: InputLimits = LIMITS) -> Float32s:
        """Rows of numbers, or a whole array [n, columns], to float32 [n, columns]."""
        rows = inputs if isinstance(inputs, np.ndarray) else list(inputs)
        try:
            values = np.asarray(rows, dtype=np.float64)
        except (TypeError, ValueError):
            values = np.empty(0)
        if values.ndim != 2 or values.shape[1] != self.shape[0]:
            number, misfit = _find_misfit(rows, self.shape[0])
            raise self._build_refusal(first + number, misfit)
        _check_finite(values, first, "is not finite")
        with np.errstate(over="ignore"):
            prepared = self._scale(values).astype(np.float32)
        _check_finite(prepared, first, "does not fit into float32")
        return prepared

    def _scale(self, values: Float64s) -> Float64s:
        return values


@dataclass(frozen=True)
class TablePreprocessing(RowPreprocessing):
    """Table rows: ``(value - mean) / std`` of each column."""

    rule: TableInput
    kind = "table"

    @property
    def shape(self) -> tuple[int, ...]:
        """(columns,)."""
        return (len(self.rule.columns),)

    def _scale(self, values: Float64s) -> Float64s:
        return np.asarray((values - self.rule.means) / self.rule.stds, np.float64)


@dataclass(frozen=True)
class VectorPreprocessing(RowPreprocessing):
    """Vectors of another model, brought to unit length by the network or, where the rule says so, here."""

    rule: VectorInput
    kind = "vector"
    is_unit_scaled = True

    @property
    def shape(self) -> tuple[int, ...]:
        """(dim,)."""
        return (self.rule.dim,)

    def _scale(self, values: Float64s) -> Float64s:
        if not self.rule.unit:
            return values
        lengths = np.linalg.norm(values, axis=1, keepdims=True)
        return values / np.where(lengths > 0, lengths, 1.0)


def _check_finite(values: Float32s | Float64s, first: int, reason: str) -> None:
    broken = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(broken):
        raise RefusedInput(first + int(broken[0]), f"it has a value that {reason}.")


def _find_misfit(rows: Sequence[object] | Float64s, width: int) -> tuple[int, str]:
    """Position and description of the first row that is not ``width`` numbers."""
    for number, row in enumerate(rows):
        if not isinstance(row, Sequence | np.ndarray) or isinstance(row, str | bytes):
            return number, type(row).__name__
        if len(row) != width:
            return number, f"{len(row)} values"
        if not all(isinstance(value, int | float | np.number) for value in row):
            return number, "something that is not a number"
    return 0, f"an array of shape {np.shape(np.asarray(rows, dtype=object))}"
