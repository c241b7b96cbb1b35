"""The models of a service: bundles of one folder, loaded side by side, one of them active."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Lock, Thread
from typing import Literal

from api_schemas.base import SCHEMA_VERSION, Schema
from api_schemas.http.admin import HistoryEntry, Model
from api_schemas.http.problem import FieldProblem
from api_schemas.manifest import MANIFEST_FILE, Manifest
from api_schemas.operating_point import OperatingPoint
from common.errors import BundleError, LimenError
from common.file_locks import FolderLock
from decision.targets import get_endpoint
from index.gallery.data_folder import open_item_store
from index.store.change_log import ChangeLog
from index.store.service_records import ServiceRecords
from index.store.shared.records import Choice, SharedRecords
from index.store.write_order import WriteOrder
from service.errors.problems import CONFLICT, NOT_FOUND, READ_ONLY, UNKNOWN_MODEL, ServiceProblem
from service.models.data_root import lock_data_folder
from service.models.loaded_model import MODELS_FOLDER, LoadedModel, get_model_folder_name, load_model
from service.models.version_figures import read_figures
from service.settings import ServiceSettings
from service.telemetry.audit_log import AuditLog
from service.telemetry.logs import LOGGER

CHOICE_FILE = "service.json"


class SavedChoice(Schema):
    """``service.json``: the bundle that was activated last. Active points are in the item store.

    ``audit_line`` is the activation's line of the audit log, which a crash may have kept from it.
    """

    schema_version: int = SCHEMA_VERSION
    version: str | None = None
    previous: str | None = None
    audit_line: str | None = None


def build_unknown_model(name: str, loaded: Iterable[str]) -> ServiceProblem:
    """The problem of a name that no loaded model has."""
    return ServiceProblem(
        UNKNOWN_MODEL,
        f"model: no loaded model is called '{name[:100]}'; loaded are {', '.join(sorted(loaded))}. "
        "Send one of these, or leave it out for the active one.",
        errors=[FieldProblem(path="model", message="send the version of a loaded model")],
    )


class ModelRegistry:
    """Loaded models by version. ``active`` is replaced as a whole, so that no request sees half a switch.

    Attributes:
        read_documents: called with a model whose reports another process has made anew.
        read_keys: called when another process has changed the API keys.
        awaited: the version that another process has activated and that is still being loaded here.
    """

    def __init__(
        self, settings: ServiceSettings, audit_log: AuditLog, shared: SharedRecords | None = None
    ) -> None:
        """``shared`` says what is active where several processes are one service."""
        self._settings = settings
        self._shared = shared
        self._audit_log = audit_log
        self._lock = Lock()  # held while what decides changes
        self._loading = Lock()
        self._loader: Thread | None = None
        self._failed: set[str] = set()  # versions that others have loaded and this process cannot
        self._choice_seen = self._keys_seen = -1
        self.read_keys: Callable[[], None] = lambda: None
        self._seen: dict[str, ChangeLog] = {}  # by version, what other processes had changed
        self.read_documents: Callable[[LoadedModel], None] = lambda model: None
        self.awaited: str | None = None
        self._loaded: dict[str, LoadedModel] = {}
        self._version = settings.bundle.resolve().name
        self._previous: str | None = None
        self.active: LoadedModel | None = None
        self._data_lock: FolderLock | None = None

    @property
    def version(self) -> str:
        """The active version: the name of its bundle's folder."""
        return self._version

    @property
    def previous(self) -> str | None:
        """The version that was active before, to go back to; None where none was."""
        return self._previous if self._previous in self._list_folders() else None

    def get_loaded(self, version: str) -> LoadedModel:
        """A loaded model by its version; raises the problem ``conflict`` where it is not loaded."""
        self.find_folder(version)
        model = self._loaded.get(version)
        if model is None:
            raise ServiceProblem(CONFLICT, f"'{version}' is not loaded: POST /v1/models first.")
        return model

    def start(self) -> LoadedModel:
        """Load the bundle that was activated last, or else that of the settings; takes seconds."""
        data = self._settings.data
        if data is not None:
            self._data_lock = lock_data_folder(data)
        choice = None if self._shared is None else self._shared.read_choice()
        if choice is not None and choice.version is not None:
            self._previous = choice.previous
            if choice.version in self._list_folders():
                self._version = choice.version
        elif data is not None and (data / CHOICE_FILE).exists():
            saved = SavedChoice.load(data / CHOICE_FILE)
            chosen, self._previous = saved.version, saved.previous
            if saved.audit_line is not None:
                self._audit_log.append_missing([saved.audit_line])
            if chosen is not None and chosen in self._list_folders():
                self._version = chosen
                if self._shared is not None:  # as a version kept it that had one process
                    self._shared.choose(chosen, self._previous or chosen, WriteOrder())
        self.active = self._load(self._version)
        return self.active

    def load(self, version: str) -> LoadedModel:
        """Load a bundle beside the others: its checksums are verified, its gallery is probed."""
        with self._loading:
            model = self._loaded.get(version) or self._load(version)
        if self._shared is not None and version not in self._shared.read_choice().loaded:
            self._shared.add_loaded(version)
        return model

    def follow(self) -> None:
        """Do what other processes of this service have done: items, points, corrections, the active model."""
        assert self._shared is not None
        for version, model in list(self._loaded.items()):
            if model.live is not None:
                log, seen = model.live.follow(), self._seen.get(version)
                if seen is None or log.points != seen.points:
                    self._read_points_again(version)
                if seen is None or log.documents != seen.documents:
                    self.read_documents(model)
                self._seen[version] = log
        log = self._shared.read_log()
        if log.choice != self._choice_seen and self._follow_choice(self._shared.read_choice()):
            self._choice_seen = log.choice
        if log.keys != self._keys_seen:
            self.read_keys()
            self._keys_seen = log.keys

    def _read_points_again(self, version: str) -> None:
        with self._lock:
            model = self._loaded[version]
            assert model.live is not None
            records = model.live.records
            model = replace(model, points={**records.read_points(), **model.gallery.operating_points})
            for endpoint, active in (("match", model.active_match), ("verify", model.active_verify)):
                chosen = model.points.get(records.read_deciding(endpoint) or "")
                if chosen is not None and chosen != active:
                    model = model.switch_point(chosen)
            self._loaded[version] = model
            if version == self._version:
                self.active = model

    def _follow_choice(self, choice: Choice) -> bool:
        """Switch to the version that is active elsewhere, load what is loaded there; whether all is done."""
        folders = self._list_folders()
        if choice.version is not None and choice.version not in {self._version, *self._failed}:
            with self._lock:
                model = self._loaded.get(choice.version)
                if model is not None:
                    self._previous, self._version, self.active = self._version, choice.version, model
        is_elsewhere = choice.version not in {None, self._version}
        self.awaited = choice.version if is_elsewhere else None
        wanted = [name for name in (choice.version, *choice.loaded) if name in folders]
        missing = [name for name in wanted if name is not None and name not in {*self._loaded, *self._failed}]
        if missing and (self._loader is None or not self._loader.is_alive()):
            self._loader = Thread(target=self._load_also, args=(missing[0],), name="models", daemon=True)
            self._loader.start()
        return not missing and not (is_elsewhere and choice.version in folders)

    def _load_also(self, version: str) -> None:
        try:
            with self._loading:
                if version not in self._loaded:
                    self._load(version)
        except Exception:  # the others have it: this one goes on with what it has, and says so
            self._failed.add(version)
            LOGGER.exception("a model that other processes have loaded cannot be loaded")

    def find_folder(self, version: str) -> Path:
        """A bundle's folder; raises the problem ``not-found``."""
        folder = self._list_folders().get(version)
        if folder is None:
            raise ServiceProblem(
                NOT_FOUND,
                f"There is no bundle '{version[:100]}'"
                + ("." if self._settings.bundles else "; LIMEN_BUNDLES names no folder of bundles."),
            )
        return folder

    def activate(self, version: str, allow_missing: bool, order: WriteOrder) -> tuple[str, int]:
        """Switch to a version; returns the previous version and the number of items that the new one lacks.

        Raises:
            Withdrawn: the order was withdrawn before the switch.
            ServiceProblem: not loaded, read-only, or items missing and not allowed.
        """
        data = self._require_data_folder()
        self.find_folder(version)
        with self._lock:
            model = self._loaded.get(version)
            if model is None:
                raise ServiceProblem(CONFLICT, f"'{version}' is not loaded: POST /v1/models first.")
            assert self.active is not None
            missing = 0 if model is self.active else _count_missing(self.active, model)
            if missing and not allow_missing:
                raise ServiceProblem(
                    CONFLICT,
                    f"'{version}' lacks {missing} items that '{self._version}' holds: write them for it, "
                    "or activate with allow_missing.",
                )
            order.note(version=version, previous=self._version, missing_items=missing)
            if self._shared is not None:
                self._shared.choose(version, self._version, order)
            else:
                self._save_choice(data, version, order)
            previous, self._version, self.active = self._version, version, model
            if previous != version:
                self._previous = previous
        return previous, missing

    def _save_choice(self, data: Path, version: str, order: WriteOrder) -> None:
        order.begin_commit()
        line = order.build_audit_line()
        saved = SavedChoice(version=version, previous=self._version, audit_line=line)
        saved.save(data / CHOICE_FILE, private=True)
        if line is not None:
            self._audit_log.append([line])

    def activate_point(
        self, point_id: str, order: WriteOrder
    ) -> tuple[str, OperatingPoint, OperatingPoint | None]:
        """Activate a point of the active model; returns its endpoint, the point and the previous one."""
        self._require_data_folder()
        with self._lock:
            model = self.active
            assert model is not None
            assert model.live is not None
            point = model.points.get(point_id)
            if point is None:
                raise ServiceProblem(NOT_FOUND, f"The model has no operating point '{point_id[:100]}'.")
            endpoint = get_endpoint(point.target)
            previous = model.active_match if endpoint == "match" else model.active_verify
            model.gallery.prepare(point)
            order.note(point=point.id, previous=None if previous is None else previous.id)
            model.live.records.set_deciding(endpoint, point_id, order)
            self._replace_active(model.switch_point(point))
        return endpoint, point, previous

    def add_point(self, point: OperatingPoint, order: WriteOrder) -> None:
        """Store a point of the active model; raises BundleError for one that this model cannot apply."""
        self._require_data_folder()
        with self._lock:
            model = self.active
            assert model is not None
            assert model.live is not None
            model.gallery.check_point(point)
            model.live.records.add_point(point, order)
            self._replace_active(replace(model, points={**model.points, point.id: point}))

    def select_model(self, name: str) -> LoadedModel:
        """The loaded model of a version or name; the active one for no name.

        Raises:
            ServiceProblem: ``unknown-model``: no loaded model is called so, and another one's vectors would
                be compared with the wrong ones.
        """
        active = self.active
        assert active is not None
        if name in ("", self._version, active.manifest.name):
            return active
        model = self._loaded.get(name)
        if model is None:
            raise build_unknown_model(name, self._loaded)
        return model

    @property
    def active_folder(self) -> Path:
        """The active bundle's folder."""
        return self.find_folder(self._version)

    def list_models(self) -> list[Model]:
        """Every bundle that can be served, by version; folders that are not bundles are left out."""
        models = []
        for version, folder in sorted(self._list_folders().items()):
            try:
                manifest = Manifest.load(folder / MANIFEST_FILE)
            except LimenError:
                continue
            model = self._loaded.get(version)
            state: Literal["available", "loaded", "active"] = "available" if model is None else "loaded"
            if version == self._version:
                state = "active"
            models.append(
                Model(
                    version=version,
                    name=manifest.name,
                    model_hash=manifest.model_hash,
                    created_at=manifest.created_at,
                    state=state,
                    items=None if model is None else model.gallery.n_items,
                    figures=read_figures(folder),
                )
            )
        return models

    def read_history(self) -> list[HistoryEntry]:
        """The report history of every model in the data folder."""
        assert self._settings.data is not None
        open_records = {
            get_model_folder_name(model.model_hash): model.live.records
            for model in self._loaded.values()
            if model.live is not None
        }
        entries: list[HistoryEntry] = []
        for folder in sorted((self._settings.data / MODELS_FOLDER).iterdir()):
            if folder.name in open_records:
                entries += open_records[folder.name].read_reports()
                continue
            try:
                store = open_item_store(folder, folder.name, self._settings.database_url, read_only=True)
            except BundleError:  # of an earlier version, or nothing was ever written
                continue
            with closing(store):
                entries += ServiceRecords(store).read_reports()
        return entries

    def close(self) -> None:
        """Close the galleries of all models."""
        if self._loader is not None:
            self._loader.join()
        for model in self._loaded.values():
            (model.live or model.gallery).close()
        if self._data_lock is not None:
            self._data_lock.close()

    def _list_folders(self) -> dict[str, Path]:
        """The folders that may be bundles, by name."""
        bundle = self._settings.bundle.resolve()
        folders = {bundle.name: bundle}
        if self._settings.bundles is not None and self._settings.bundles.is_dir():
            for entry in self._settings.bundles.iterdir():
                # a link could lead anywhere; a hidden folder is being written
                if entry.is_dir() and not entry.is_symlink() and not entry.name.startswith("."):
                    folders.setdefault(entry.name, entry.resolve())
        return folders

    def _load(self, version: str) -> LoadedModel:
        model = load_model(self.find_folder(version), self._settings, self._audit_log)
        if model.live is not None:
            records = model.live.records
            model = replace(model, points={**records.read_points(), **model.points})
            for endpoint in ("match", "verify"):
                chosen = model.points.get(records.read_deciding(endpoint) or "")
                if chosen is not None:
                    model = model.switch_point(chosen)
        self._loaded[version] = model
        return model

    def _replace_active(self, model: LoadedModel) -> None:
        self._loaded[self._version] = self.active = model

    def _require_data_folder(self) -> Path:
        if self._settings.data is None:
            raise ServiceProblem(
                READ_ONLY,
                "The service was started without a data folder: add --data DIR to change what decides.",
            )
        return self._settings.data


def _count_missing(active: LoadedModel, model: LoadedModel) -> int:
    """The number of items of the active model that another model lacks."""
    return sum(model.gallery.view.get_vector(item.id) is None for item in active.iterate_items())
