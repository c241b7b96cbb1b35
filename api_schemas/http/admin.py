"""HTTP bodies of the endpoints that administer a service: jobs, models, operating points, report history."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from api_schemas.base import Finite, Schema
from api_schemas.http.decisions import Body

BundleName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class Job(Schema):
    """A background job. ``path`` is where its result can be read once it is done."""

    id: str
    kind: str
    status: Literal["waiting", "running", "done", "failed"]
    created_at: datetime
    finished_at: datetime | None
    detail: str | None
    path: str | None
    step: str | None = Field(default=None, description="What a running job does now, where it says so.")
    progress: Finite | None = Field(
        default=None, ge=0, le=1, description="The part of that step that is done."
    )


class ModelFigures(Schema):
    """Figures of a version's hold-out report. ``fnir`` is that at an FPIR of 1 %; ``opis`` is debiased where
    classes are large enough."""

    recall_at_1: Finite | None
    opis: Finite | None
    opis_ci: tuple[Finite, Finite] | None
    eer: Finite | None
    fnir: Finite | None
    items: int
    classes: int


class Model(Schema):
    """A bundle that can be served; bundles lie in the folder that `LIMEN_BUNDLES` names."""

    version: str = Field(description="Name of the bundle's folder.")
    name: str
    model_hash: str
    created_at: datetime
    state: Literal["available", "loaded", "active"]
    items: int | None = Field(description="Items in its gallery, once it is loaded.")
    figures: ModelFigures | None = Field(default=None, description="Of its hold-out report.")


class OpenAiModel(Schema):
    """A loaded model as OpenAI's API describes one; ``id`` is what ``/v1/embeddings`` takes as ``model``."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="When the bundle was made, in seconds since 1970.")
    owned_by: str = "limen"


class ModelList(Schema):
    """All bundles that can be served, by version; ``data`` lists the loaded ones as OpenAI's API does."""

    models: list[Model]
    object: Literal["list"] = "list"
    data: list[OpenAiModel] = Field(default_factory=list)


class LoadRequest(Body):
    """The bundle to load beside the active one."""

    version: BundleName


class ActivateModelRequest(Body):
    """A switch to a loaded model; ``allow_missing`` accepts that it lacks items of the active one."""

    allow_missing: bool = False


class ActivateModelResponse(Schema):
    """The models after a switch: requests from now on are answered by ``active``."""

    active: str
    previous: str
    missing_items: int


class ActivatePointResponse(Schema):
    """The operating points after a switch: ``active`` decides ``endpoint`` from now on."""

    endpoint: Literal["match", "verify"]
    active: str
    previous: str | None


class GallerySummary(Schema):
    """One of the galleries of a service; what it answers is under `/v1/galleries/{name}`."""

    name: str
    status: Literal["loading", "ready", "failed"]
    detail: str | None = Field(default=None, description="Why a gallery has failed.")
    model_hash: str | None = Field(description="Of its active model, once that is loaded.")
    version: str | None
    items: int | None
    read_only: bool


class GalleryList(Schema):
    """The galleries of a service, that of the plain paths first."""

    galleries: list[GallerySummary]


class HistoryEntry(Schema):
    """The main figures of one past report."""

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
    opis_ci: tuple[Finite, Finite] | None = None
    recall_at_1: Finite | None = None
    eer: Finite | None = None
    fnir: Finite | None = Field(default=None, description="At an FPIR of 1 %.")


class History(Schema):
    """The main figures of all reports, over time and over model versions, oldest first."""

    entries: list[HistoryEntry]
