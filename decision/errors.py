"""Errors of a decision that is not made: no operating point, another model's, or another rule's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from api_schemas.operating_point import OperatingPoint
from common.errors import BundleError, LimenError
from decision.targets import Endpoint


class NoOperatingPoint(LimenError):
    """A decision was requested and no operating point makes it; the message gives the bundle's reasons."""

    def __init__(self, endpoint: Endpoint, reasons: Sequence[str]) -> None:
        self.reasons = list(reasons)
        target = "--target-fpir" if endpoint == "match" else "--target-far"
        why = " ".join(reasons) or "The bundle was made without one."
        super().__init__(
            f"No operating point decides {endpoint}. {why} Calibrate one with `limen calibrate ... {target} "
            "0.01` and export with --operating-point; search needs none."
        )


class OtherRule(LimenError):
    """A decision was requested by another rule than the operating point was calibrated for."""


class OtherGroup(LimenError):
    """A decision was requested for a group that no operating point is for."""


class OtherModel(BundleError):
    """An operating point of another model than the one at hand."""


def check_model(point: OperatingPoint, model_hash: str, file: Path | None = None) -> None:
    """Raises OtherModel for a point, perhaps read from a file, that was calibrated for another model."""
    if point.model_hash != model_hash:
        where = "The operating point" if file is None else f"{file}: the operating point"
        raise OtherModel(
            f"{where} '{point.name}' belongs to model {point.model_hash[:12]}, the bundle to "
            f"{model_hash[:12]}: calibrate again with this model."
        )
