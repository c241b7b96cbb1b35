"""The engine of each kind: built, and opened from its file."""

from __future__ import annotations

import warnings
from pathlib import Path

import faiss

from api_schemas.config import IndexConfig
from api_schemas.manifest import IndexDescription, IndexKind
from common.array_types import RowIndices, UnitVectors
from common.errors import BundleError
from common.progress import Track, silent
from index.engines.base import Engine
from index.engines.flat import FlatEngine
from index.engines.hnsw import HnswEngine, beam_for
from index.engines.ivf_pq import IvfPqEngine

Approximate = HnswEngine | IvfPqEngine

FAISS_TYPES = {
    "flat": faiss.IndexFlat,
    "hnsw": faiss.IndexHNSWFlat,
    "hnsw_sq8": faiss.IndexHNSWSQ,
    "ivf_pq": faiss.IndexIVFPQFastScan,
}
PARAMETERS = {
    "flat": set(),
    "hnsw": {"m", "ef_construction", "ef_search"},
    "hnsw_sq8": {"m", "ef_construction", "ef_search"},
    "ivf_pq": {"cells", "nprobe"},
}


def build_engine(
    vectors: UnitVectors, rows: RowIndices, config: IndexConfig, kind: IndexKind, track: Track = silent
) -> Engine:
    """An engine over ``vectors[rows]``, node i holding row ``rows[i]``."""
    if kind == "flat":
        return FlatEngine.build(vectors, rows, config, track)
    if kind == "ivf_pq":
        return IvfPqEngine.build(vectors, rows, config, track)
    return HnswEngine.build(vectors, rows, config, kind, track)


def open_engine(path: Path, description: IndexDescription) -> Engine:
    """Memory-map an index file whose checksum has been verified; it is read-only from then on.

    Raises:
        BundleError: FAISS cannot read the file, or it is of another kind than described.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise BundleError(
            f"{path} is not an index that FAISS can read: {str(error).splitlines()[0]}."
        ) from None
    kind = description.kind
    if not isinstance(index, FAISS_TYPES[kind]) or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise BundleError(
            f"{path} holds a {type(index).__name__}, the manifest says {kind}: build the bundle again."
        )
    missing = PARAMETERS[kind] - description.parameters.keys()
    if missing:
        raise BundleError(f"{path}: the manifest's index parameters lack {', '.join(sorted(missing))}.")
    if kind == "flat":
        return FlatEngine(index)
    if kind == "ivf_pq":
        return IvfPqEngine(index, dict(description.parameters))
    return HnswEngine(index, kind, dict(description.parameters))


def rebuild_config(was: IndexDescription, nodes: int) -> IndexConfig:
    """What an engine over ``nodes`` distinct vectors was built with, to build the next; what had been left
    open is chosen anew."""
    asked = {name: value for name, value in was.parameters.items() if name in IndexConfig.model_fields}
    if asked.get("ef_search") == beam_for(nodes):
        del asked["ef_search"]
    if "recall" in was.parameters:  # the number of cells to look into was measured
        del asked["nprobe"]
    return IndexConfig.model_validate({"kind": "auto" if was.reason is not None else was.kind, **asked})
