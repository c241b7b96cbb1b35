"""Bodies of the endpoints that administer a service: jobs, models, operating points, history."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from api_schemas.base import Finite, Schema
from api_schemas.http.decisions import Body

BundleName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class Job(Schema):
    """Something that takes long. ``path`` is where its result can be read once it is done."""

    id: str
    kind: str
    status: Literal["waiting", "running", "done", "failed"]
    created_at: datetime
    finished_at: datetime | None
    detail: str | None
    path: str | None


class Model(Schema):
    """A bundle of the configured folder."""

    version: str = Field(description="The bundle's folder.")
    name: str
    model_hash: str
    created_at: datetime
    state: Literal["available", "loaded", "active"]
    items: int | None = Field(description="Live items, once it is loaded.")


class ModelList(Schema):
    """All bundles that can be served."""

    models: list[Model]


class LoadRequest(Body):
    """Load a bundle beside the active one: opened, checked, probed, warm."""

    version: BundleName


class ActivateModelRequest(Body):
    """Switch to a loaded model; ``allow_missing`` accepts items that it lacks."""

    allow_missing: bool = False


class ActivateModelResponse(Schema):
    """The switch is done: requests from now on are answered by ``active``."""

    active: str
    previous: str
    missing_items: int


class ActivatePointResponse(Schema):
    """The point that decides from now on, and the one before."""

    endpoint: Literal["match", "verify"]
    active: str
    previous: str | None


class HistoryEntry(Schema):
    """One report of the past."""

    at: datetime
    source: Literal["holdout", "gallery", "feedback"]
    model_hash: str
    version: str
    operating_point: str | None
    items: int
    opis: Finite | None
    opis_debiased: Finite | None
    far: Finite | None
    frr: Finite | None


class History(Schema):
    """Reports over time and over model versions, oldest first."""

    entries: list[HistoryEntry]
