"""Several galleries in one service: their settings, from one file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError

from api_schemas.base import Schema, describe_first_problem
from common.errors import ConfigError
from encoder.thumbnails import LARGEST_SIDE, SMALLEST_SIDE
from service.settings import ServiceSettings

GALLERIES_FOLDER = "galleries"
MOST_GALLERIES = 64
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class GallerySettings(Schema):
    """What a gallery has of its own; paths are relative to the file that names them.

    Attributes:
        bundle: what it serves.
        hosts: names in ``Host`` by which all of it, its pages too, is reached without a path of its own.
        bundles: folder of its further models.
        api_keys_file: its keys; those of the service unless given.
        database_url: PostgreSQL for its items, which no other gallery has.
        alerts_file: its alert rules.
        keep_unknowns, unknowns_days, thumbnails, unknown_share: of the service unless given.
    """

    bundle: Path
    hosts: tuple[str, ...] = ()
    bundles: Path | None = None
    api_keys_file: Path | None = None
    database_url: str | None = None
    alerts_file: Path | None = None
    keep_unknowns: Literal["off", "unknown", "all"] | None = None
    unknowns_days: int | None = Field(default=None, ge=1, le=36_500)
    thumbnails: int | None = Field(default=None, ge=SMALLEST_SIDE, le=LARGEST_SIDE)
    unknown_share: float | None = Field(default=None, gt=0, lt=1)


def read_galleries(file: Path | None, service: ServiceSettings) -> dict[str, GallerySettings]:
    """The galleries of a file by name, their paths made absolute; none without a file.

    Raises ConfigError for a file, a name or a setting that cannot be used.
    """
    if file is None:
        return {}
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} (LIMEN_GALLERIES) cannot be read: {error}.") from None
    if not isinstance(content, dict):
        raise ConfigError(
            f"{file} must map names of galleries to their settings, such as `faces: {{bundle: ...}}`."
        )
    galleries = {str(name): _read_gallery(file, str(name), given) for name, given in content.items()}
    if len(galleries) > MOST_GALLERIES:
        raise ConfigError(
            f"{file} names {len(galleries)} galleries, at most {MOST_GALLERIES} fit one service."
        )
    if service.gallery in galleries:
        raise ConfigError(f"{file}: '{service.gallery}' is the gallery of LIMEN_BUNDLE: choose another name.")
    _check_distinct(
        file, "database_url", [service.database_url, *(g.database_url for g in galleries.values())]
    )
    _check_distinct(file, "hosts", [host for gallery in galleries.values() for host in gallery.hosts])
    return galleries


def derive_settings(name: str, gallery: GallerySettings, service: ServiceSettings) -> ServiceSettings:
    """The settings that a gallery runs with: the service's, but for what it has of its own."""
    shared = {field: getattr(service, field) for field in ServiceSettings.model_fields}
    own = gallery.model_dump(exclude={"hosts"}, exclude_none=True)
    data = None if service.data is None else service.data / GALLERIES_FOLDER / name
    apart = {"gallery": name, "data": data, "galleries": None, "bundles": None, "database_url": None}
    return ServiceSettings(**{**shared, **apart, **own})


def _read_gallery(file: Path, name: str, given: object) -> GallerySettings:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{file}: '{name[:100]}' cannot name a gallery: up to 63 of a-z, 0-9, '-' and '_' can."
        )
    try:
        gallery = GallerySettings.model_validate(given)
    except ValidationError as error:
        where, what = describe_first_problem(error)
        raise ConfigError(f"{file}: {name}: {where}: {what}.") from None
    folder = file.resolve().parent
    paths = {
        field: folder / value
        for field in ("bundle", "bundles", "api_keys_file", "alerts_file")
        if (value := getattr(gallery, field)) is not None
    }
    return gallery.model_copy(update={**paths, "hosts": tuple(host.lower() for host in gallery.hosts)})


def _check_distinct(file: Path, field: str, values: list[str | None]) -> None:
    """Raises ConfigError where two galleries have the same value."""
    given = [value for value in values if value is not None]
    if len(set(given)) < len(given):
        raise ConfigError(f"{file}: two galleries have the same {field}: each needs one of its own.")
