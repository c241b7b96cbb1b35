"""What a worker process is given to do, and what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from api_schemas.base import Schema


class GalleryTask(Schema):
    """Work on the items of a model.

    Attributes:
        bundle: the model's folder.
        items_folder: of the data folder; None for the bundle's own items.
        database_url: where the items are if not in the folder.
        point: id of the operating point whose score counts, and whose threshold an audit goes by.
        update: bring a report up to date from the items that changed, where there is one.
        thresholds: of the hold-out report, over which OPIS is measured; None for those of the gallery itself.
        threshold: that decides 1:1 now by the score that counts, at which every class's rates are wanted.
        further_thresholds: at which rates are wanted as well.
        most: findings of an audit.
    """

    kind: Literal["report", "label audit"]
    bundle: Path
    items_folder: Path | None
    database_url: str | None
    point: str | None
    update: bool = False
    thresholds: list[float] | None = None
    threshold: float | None = None
    further_thresholds: list[float] = Field(default_factory=list)
    most: int = 0


class Message(Schema):
    """A line that a worker prints: how far it is, or how it ended."""

    step: str | None = None
    progress: float | None = None
    result: dict[str, Any] | None = None
    problem: str | None = None
    traceback: str | None = None
