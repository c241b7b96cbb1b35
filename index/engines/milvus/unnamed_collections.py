"""Collections of Milvus that no bundle and no data folder names any more, as when its folder was deleted."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from api_schemas.manifest import COLLECTION_FILE
from common.errors import InputError
from index.engines.milvus.collection import Collection
from index.engines.milvus.engine import CollectionRecord
from index.engines.milvus.server import get_server

PREFIX = "limen_"


class KnownCollection(NamedTuple):
    """A generation's collection on the server, and the folder that names it; None if no folder does."""

    name: str
    folder: Path | None


def list_collections(folders: Iterable[Path]) -> list[KnownCollection]:
    """The collections of Limen on the server of the environment, by name.

    Args:
        folders: bundles, data folders, or folders of them; they are searched at any depth.

    Raises:
        InputError: one of them is no folder.
        EngineUnavailable: the server is away.
    """
    owners: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder: name the bundles and data folders that are in use.")
        for file in folder.rglob(COLLECTION_FILE):
            owners[CollectionRecord.load(file).key] = file.parent
    # NAME_a or NAME_b, where NAME ends with the key
    found = get_server().call("list_collections")
    names = sorted({name[:-2] for name in found if name.startswith(PREFIX) and name[-2:] in {"_a", "_b"}})
    return [KnownCollection(name, owners.get(name.rpartition("_")[2])) for name in names]


def remove_collection(name: str) -> None:
    """Remove a collection with its alias; a bundle that names it all the same loads it again when opened."""
    Collection(get_server(), name, dim=0).drop()
