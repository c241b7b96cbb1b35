"""Models side by side: bundles of one folder, loaded beside the active one and switched to at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Literal

from api_schemas.base import SCHEMA_VERSION, Schema
from api_schemas.http.admin import HistoryEntry, Model
from api_schemas.manifest import MANIFEST_FILE, Manifest
from api_schemas.operating_point import OperatingPoint
from common.errors import BundleError, LimenError
from index.gallery.following_gallery import item_store
from index.store.service_records import Records
from service.errors.problems import CONFLICT, NOT_FOUND, READ_ONLY, ServiceProblem
from service.models.loaded_model import MODELS_FOLDER, LoadedModel, endpoint_of, load, model_folder_name
from service.settings import ServiceSettings

CHOICES_FILE = "service.json"


class SavedChoice(Schema):
    """What was activated through the API: the bundle. Points that were are kept with their model's items."""

    schema_version: int = SCHEMA_VERSION
    version: str | None = None


class ModelRegistry:
    """Loaded models by version; ``active`` is replaced whole, so that no request sees a half switch."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._loaded: dict[str, LoadedModel] = {}
        self._version = settings.bundle.resolve().name
        self._choices = SavedChoice()
        if settings.data is not None and (settings.data / CHOICES_FILE).exists():
            self._choices = SavedChoice.load(settings.data / CHOICES_FILE)
        self.active: LoadedModel | None = None

    @property
    def version(self) -> str:
        """The active bundle's folder."""
        return self._version

    def start(self) -> LoadedModel:
        """Load the bundle of the settings, or the one that was activated last; takes seconds."""
        chosen = self._choices.version
        if chosen is not None and chosen in self._folders():
            self._version = chosen
        served = self._load(self._version)
        self.active = served
        return served

    def loaded(self, version: str) -> LoadedModel | None:
        """A loaded version, or None."""
        return self._loaded.get(version)

    def load(self, version: str) -> LoadedModel:
        """Load a bundle beside the others: opened, hashed, probed, self-queried."""
        with self._lock:
            return self._loaded.get(version) or self._load(version)

    def folder(self, version: str) -> Path:
        """A bundle's folder; raises the problem ``not-found``."""
        found = self._folders().get(version)
        if found is None:
            raise ServiceProblem(
                NOT_FOUND,
                f"There is no bundle '{version[:100]}'"
                + ("." if self._settings.bundles else "; LIMEN_BUNDLES names no folder of bundles."),
            )
        return found

    def activate(self, version: str, allow_missing: bool) -> tuple[str, int]:
        """Switch; returns the version before and how many items the new one lacks.

        Raises:
            ServiceProblem: not loaded, read-only, or items missing and not allowed.
        """
        data = self._writable()
        self.folder(version)
        with self._lock:
            served = self._loaded.get(version)
            if served is None:
                raise ServiceProblem(CONFLICT, f"'{version}' is not loaded: POST /v1/models first.")
            assert self.active is not None
            missing = 0 if served is self.active else _missing(self.active, served)
            if missing and not allow_missing:
                raise ServiceProblem(
                    CONFLICT,
                    f"'{version}' lacks {missing} items that '{self._version}' holds: write them for it, "
                    "or activate with allow_missing.",
                )
            previous, self._version, self.active = self._version, version, served
            self._choose(data, self._choices.model_copy(update={"version": version}))
        return previous, missing

    def activate_point(self, point_id: str) -> tuple[str, OperatingPoint, OperatingPoint | None]:
        """Let a point of the active model decide; returns the endpoint, the point and the one before."""
        self._writable()
        with self._lock:
            served = self.active
            assert served is not None
            point = served.points.get(point_id)
            if point is None:
                raise ServiceProblem(NOT_FOUND, f"The model has no operating point '{point_id[:100]}'.")
            endpoint = endpoint_of(point)
            previous = served.active_match if endpoint == "match" else served.active_verify
            assert served.live is not None
            changed = served.switch_point(point)
            served.live.records.set_deciding(endpoint, point_id)
            self._adopt(changed)
        return endpoint, point, previous

    def add_point(self, point: OperatingPoint) -> None:
        """Keep a point of the active model; raises BundleError for one of another model or cohort."""
        self._writable()
        with self._lock:
            served = self.active
            assert served is not None
            served.check_point(point)
            assert served.live is not None
            served.live.records.add_point(point)
            self._adopt(replace(served, points={**served.points, point.id: point}))

    def active_folder(self) -> Path:
        """The active bundle's folder."""
        return self.folder(self._version)

    def list_models(self) -> list[Model]:
        """Every bundle of the folder, by version; what is no bundle is passed over."""
        models = []
        for version, folder in sorted(self._folders().items()):
            try:
                manifest = Manifest.load(folder / MANIFEST_FILE)
            except LimenError:
                continue
            served = self._loaded.get(version)
            state: Literal["available", "loaded", "active"] = "available" if served is None else "loaded"
            if version == self._version:
                state = "active"
            models.append(
                Model(
                    version=version,
                    name=manifest.name,
                    model_hash=manifest.model_hash,
                    created_at=manifest.created_at,
                    state=state,
                    items=None if served is None else served.gallery.n_items,
                )
            )
        return models

    def history(self) -> list[HistoryEntry]:
        """The reports of the past of every model that items are kept of."""
        assert self._settings.data is not None
        open_here = {
            model_folder_name(served.model_hash): served.live.records
            for served in self._loaded.values()
            if served.live is not None
        }
        entries: list[HistoryEntry] = []
        for folder in sorted((self._settings.data / MODELS_FOLDER).iterdir()):
            if folder.name in open_here:
                entries += open_here[folder.name].reports()
                continue
            try:
                store = item_store(folder, folder.name, self._settings.database_url, read_only=True)
            except BundleError:  # of an earlier version, or nothing was ever written
                continue
            with closing(store):
                entries += Records(store).reports()
        return entries

    def close(self) -> None:
        """Let go of all files."""
        for served in self._loaded.values():
            served.gallery.close()

    def _folders(self) -> dict[str, Path]:
        bundle = self._settings.bundle.resolve()
        found = {bundle.name: bundle}
        if self._settings.bundles is not None and self._settings.bundles.is_dir():
            for entry in self._settings.bundles.iterdir():
                # a link could lead anywhere; a hidden folder is one half written
                if entry.is_dir() and not entry.is_symlink() and not entry.name.startswith("."):
                    found.setdefault(entry.name, entry.resolve())
        return found

    def _load(self, version: str) -> LoadedModel:
        folder = self.folder(version)
        served = load(folder, self._settings)
        if served.live is not None:
            records = served.live.records
            served = replace(served, points={**records.points(), **served.points})
            for endpoint in ("match", "verify"):
                chosen = served.points.get(records.deciding(endpoint) or "")
                if chosen is not None:
                    served = served.switch_point(chosen)
        self._loaded[version] = served
        return served

    def _adopt(self, served: LoadedModel) -> None:
        self._loaded[self._version] = self.active = served

    def _writable(self) -> Path:
        if self._settings.data is None:
            raise ServiceProblem(
                READ_ONLY,
                "The service was started without a data folder: add --data DIR to change what decides.",
            )
        return self._settings.data

    def _choose(self, data: Path, choices: SavedChoice) -> None:
        choices.save(data / CHOICES_FILE)
        self._choices = choices


def iterate_item_ids(served: LoadedModel, block: int = 4096) -> Iterator[list[str]]:
    """The ids of all items, in blocks."""
    after: str | None = None
    while found := served.gallery.page(after, block):
        after = found[-1].id
        yield [item.id for item in found]


def _missing(active: LoadedModel, other: LoadedModel) -> int:
    return sum(other.gallery.vector(one) is None for block in iterate_item_ids(active) for one in block)
