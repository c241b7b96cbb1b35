"""Erasing items: the places that a deletion reaches, and those that it can only name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from index.live import LiveGallery
from service.served import MODELS_FOLDER, model_folder
from service.state import State


def erase(live: LiveGallery, state: State, ids: list[str]) -> int:
    """Delete items and what was told about them; returns how many items were there."""
    deleted = live.delete(ids)
    _forget(state, ids)
    return deleted


def erase_where(live: LiveGallery, state: State, condition: Mapping[str, Any]) -> list[str]:
    """Delete the items a filter holds for and what was told about them; returns their ids."""
    gone = live.delete_where(condition)
    _forget(state, gone)
    return gone


def out_of_reach(state: State, model_hash: str, job: str | None) -> list[str]:
    """The places an erasure does not reach, in words; ``job`` is the rebuild under way, if any."""
    places = [
        "the bundle, which is never written",
        "backups and exports made before",
        "files of the index "
        + (f"until job {job} is done" if job else "until it is built again, which `rebuild` asks for"),
        "the item store's write-ahead log, at the latest until the service ends",
        "the audit log, which keeps ids and the filters of deletions",
    ]
    if state.settings.data is not None:
        folder = state.settings.data / MODELS_FOLDER
        own = model_folder(model_hash)
        others = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name != own)
        if others:
            places.append(f"items of other models ({', '.join(others)}): delete there while each is active")
    return places


def _forget(state: State, ids: Collection[str]) -> None:
    gone = set(ids)
    state.feedback.remove(lambda entry: entry.a in gone or entry.b in gone)
