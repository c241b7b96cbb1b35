"""The engine kinds, built and opened from their files: a kind is one class and one line in ``ENGINES``."""

from __future__ import annotations

import warnings
from pathlib import Path

import faiss

from api_schemas.build_config import IndexConfig
from api_schemas.manifest import IndexDescription, IndexKind
from common.errors import BundleError
from index.engines.engine import FaissEngine
from index.engines.flat import FlatEngine
from index.engines.hnsw import HnswEngine, HnswSq8Engine
from index.engines.ivf_pq import IvfPqEngine

ENGINES: dict[IndexKind, type[FaissEngine]] = {
    engine.kind: engine for engine in (FlatEngine, HnswEngine, HnswSq8Engine, IvfPqEngine)
}
"""In the order in which ``auto`` prefers them."""


def open_engine(path: Path, description: IndexDescription) -> FaissEngine:
    """Memory-map an index file whose checksum has been verified; it is read-only from then on.

    Raises BundleError if FAISS cannot read the file, or it is of another kind than described.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise BundleError(
            f"{path} is not an index that FAISS can read: {str(error).splitlines()[0]}."
        ) from None
    engine = ENGINES[description.kind]
    if not isinstance(index, engine.faiss_type) or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise BundleError(
            f"{path} holds a {type(index).__name__}, the manifest says {engine.kind}: build the bundle again."
        )
    missing = engine.required_parameters - description.parameters.keys()
    if missing:
        raise BundleError(f"{path}: the manifest's index parameters lack {', '.join(sorted(missing))}.")
    return engine(index, dict(description.parameters))


def rebuild_config(was: IndexDescription, nodes: int) -> IndexConfig:
    """The configuration that an engine over ``nodes`` distinct vectors was built with, to build the next;
    what it left open is chosen again."""
    requested = ENGINES[was.kind].select_requested_parameters(dict(was.parameters), nodes)
    return IndexConfig.model_validate({"kind": "auto" if was.reason is not None else was.kind, **requested})
