"""Which fixed class vector belongs to which class: what keeps models of later versions comparable."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from api_schemas.base import SCHEMA_VERSION, Schema
from common.errors import InputError

CLASS_CORNERS_FILE = "class_corners.json"


class ClassCorners(Schema):
    """Index of each class's corner of the regular simplex with ``dimension + 1`` corners.

    Holds every class that this model or one before it was trained on, so that no corner is given twice.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    dimension: int = Field(ge=1)
    corners: dict[str, int]

    @model_validator(mode="after")
    def _check_corners(self) -> Self:
        used = self.corners.values()
        if len(set(used)) < len(used) or not all(0 <= corner <= self.dimension for corner in used):
            raise ValueError(f"corners must be distinct numbers from 0 to {self.dimension}")
        return self

    @classmethod
    def load_from_model(cls, folder: Path) -> Self:
        """Those of a run folder or a bundle; raises InputError when it has none."""
        path = folder / CLASS_CORNERS_FILE
        if not path.is_file():
            raise InputError(
                f"{folder} has no {CLASS_CORNERS_FILE}: give a run that was trained with d_simplex, or a "
                "bundle of one."
            )
        return cls.load(path)
