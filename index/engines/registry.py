"""The engine kinds, built and opened from their files: a kind is one class and one line in ``ENGINES``."""

from __future__ import annotations

from pathlib import Path

from api_schemas.build_config import IndexConfig
from api_schemas.manifest import IndexDescription, IndexKind
from common.errors import BundleError
from index.engines.engine import BuiltEngine, NodeSource
from index.engines.flat import FlatEngine
from index.engines.hnsw import HnswEngine, HnswSq8Engine
from index.engines.ivf_pq import IvfPqEngine
from index.engines.milvus.engine import MilvusEngine
from index.engines.search_settings import load_search_settings

ENGINES: dict[IndexKind, type[BuiltEngine]] = {
    engine.kind: engine for engine in (FlatEngine, HnswEngine, HnswSq8Engine, IvfPqEngine, MilvusEngine)
}
"""In the order in which ``auto`` prefers them."""


def open_engine(folder: Path, description: IndexDescription, source: NodeSource) -> BuiltEngine:
    """Open the engine that was saved into a folder, its file's checksum verified; see ``BuiltEngine.open``.

    Raises BundleError if it cannot be read, or is of another kind than described.
    """
    engine = ENGINES[description.kind]
    missing = engine.required_parameters - description.parameters.keys()
    if missing:
        raise BundleError(
            f"{folder / engine.file}: the manifest's index parameters lack {', '.join(sorted(missing))}."
        )
    opened = engine.open(folder, description, source)
    opened.measured = list(description.measured)
    asked = load_search_settings().recall
    if asked is not None and asked > description.parameters.get("target_recall", 0.0):
        opened.require_recall(asked)
    return opened


def discard_engines(folder: Path, model_hash: str, dim: int) -> None:
    """Remove what the engine of a generation's folder keeps elsewhere; raises EngineUnavailable."""
    for engine in ENGINES.values():
        if (folder / engine.file).is_file():
            engine.discard(folder, model_hash, dim)


def rebuild_config(was: IndexDescription, nodes: int) -> IndexConfig:
    """The configuration that an engine over ``nodes`` distinct vectors was built with, to build the next;
    what it left open is chosen again."""
    requested = ENGINES[was.kind].select_requested_parameters(dict(was.parameters), nodes)
    return IndexConfig.model_validate({"kind": "auto" if was.reason is not None else was.kind, **requested})
