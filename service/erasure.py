"""Erasing items: the places that a deletion does not reach, and can only name."""

from __future__ import annotations

from service.served import MODELS_FOLDER, model_folder
from service.state import State


def out_of_reach(state: State, model_hash: str, job: str | None) -> list[str]:
    """The places an erasure does not reach, in words; ``job`` is the rebuild under way, if any."""
    places = [
        "the bundle, which is never written",
        "backups and exports made before",
        "files of the index "
        + (f"until job {job} is done" if job else "until it is built again, which `rebuild` asks for"),
        "the item store's write-ahead log, at the latest until the service ends",
        "reports made before, which name labels",
        "the audit log, which keeps ids and the filters of deletions",
    ]
    if state.settings.data is not None:
        folder = state.settings.data / MODELS_FOLDER
        own = model_folder(model_hash)
        others = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name != own)
        if others:
            places.append(f"items of other models ({', '.join(others)}): delete there while each is active")
    return places
