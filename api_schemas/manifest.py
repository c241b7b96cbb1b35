"""``manifest.json``: the files of a bundle, their names and checksums (docs/specification.md, Bundle)."""

from __future__ import annotations

from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from api_schemas.base import Finite, Schema

MANIFEST_FILE = "manifest.json"
VECTORS_FILE = "vectors.npy"
ITEMS_FILE = "items.parquet"
INDEX_FILE = "index.faiss"
GRAPH_FILE = "graph.npy"  # in its place, where vectors are searched by a graph
COLLECTION_FILE = "collection.json"  # in its place, where vectors are searched by Milvus
CONFIG_FILE = "config.yaml"
REPORT_FILE = "report.json"
README_FILE = "README.md"
COHORT_FILE = "cohort.npy"
COHORT_LABELS_FILE = "cohort_labels.parquet"
POINTS_FOLDER = "operating_points"
ENCODER_FILE = "encoder.onnx"
PREPROCESSING_FILE = "preprocessing.json"
TOKENIZER_FILE = "tokenizer.json"
THUMBNAILS_FILE = "thumbnails.bin"
THUMBNAIL_ENDS_FILE = "thumbnail_ends.npy"

IndexKind = Literal["flat", "hnsw", "hnsw_sq8", "ivf_pq", "milvus"]


def _check_inside(name: str) -> str:
    path = PurePosixPath(name)
    plain = not path.is_absolute() and ".." not in path.parts and str(path) == name
    if not plain or name in {"", ".", MANIFEST_FILE} or "\\" in name or "\0" in name:
        raise ValueError(f"'{name}' is not the plain relative path of a file inside the bundle")
    return name


FileName = Annotated[str, AfterValidator(_check_inside)]
"""A file's path inside the bundle, with ``/`` between folders; it can never lead outside."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class FileEntry(Schema):
    """Checksum and size of a file; ``size`` in bytes."""

    sha256: Sha256
    size: int = Field(ge=0)


class EncoderFiles(Schema):
    """The encoder's network, its preprocessing, and what else it needs (a tokenizer)."""

    network: FileName = ENCODER_FILE
    preprocessing: FileName = PREPROCESSING_FILE
    others: list[FileName] = Field(default_factory=list)


class SelfRecall(Schema):
    """The audit after a build: nodes searched for by their own vectors.

    ``probed`` nodes: all of them, or of a large set a random sample. The engine alone missed ``missed``
    of these; ``linked`` of them are found since a link was added, the rest are on the side list. With 95 %
    confidence at most ``share_upper`` of the nodes that were not probed are missed, 0 if all were probed.
    """

    probed: int = Field(ge=1)
    missed: int = Field(ge=0)
    linked: int = Field(ge=0)
    share_upper: float = Field(ge=0, le=1)


class EffortRecall(Schema):
    """The recall@10 of a search's ``effort`` (``ef_search`` or ``nprobe``), on rows held out of the build."""

    effort: int = Field(ge=1)
    recall: float = Field(ge=0, le=1)


class IndexDescription(Schema):
    """The engine that proposes candidates, with every parameter it was built with.

    Where the build chose the effort of a search, the parameter ``target_recall`` is what it was to reach,
    ``recall`` what it reached, and ``measured`` what other efforts reach, for serving that asks for more.
    ``reason`` says why this kind was chosen when the configuration left the choice open. ``self_recall`` is
    null for exact kinds, and in files written before it was recorded.
    """

    kind: IndexKind
    parameters: dict[str, int | Finite] = Field(default_factory=dict)
    reason: str | None = None
    self_recall: SelfRecall | None = None
    measured: list[EffortRecall] = Field(default_factory=list)


class BundleCounts(Schema):
    """Rows of the gallery.

    ``distinct_vectors`` is how many nodes the engine holds: identical vectors share one.
    ``side_list`` counts the rows the engine did not find when each was searched by itself; they are
    compared with every query exactly. ``cohort`` counts the vectors local densities are measured against.
    """

    items: int = Field(ge=1)
    classes: int = Field(ge=1)
    distinct_vectors: int = Field(ge=1)
    side_list: int = Field(ge=0)
    cohort: int = Field(ge=0)


class ActiveOperatingPoints(Schema):
    """Ids of the points that decide ``/v1/verify`` and ``/v1/match``; ``reasons`` say why one is null.

    ``ladder`` lists every point of the bundle, strict ones first; ``choice`` says why the active ones were
    taken.
    """

    verify: str | None = None
    match: str | None = None
    reasons: list[str] = Field(default_factory=list)
    ladder: list[str] = Field(default_factory=list)
    choice: str | None = None


class Manifest(Schema):
    """The first file that is read of a bundle; nothing is opened that it does not name.

    ``data_hash`` covers the gallery's rows and labels. ``encoder`` is null for bundles made from
    precomputed vectors; ``model_hash`` then stands for the model's name, dimension and normalisation.
    ``gallery_model_hash`` is of the model that made the vectors, where that is an older one whose gallery was
    kept (``limen export --gallery-of``).
    """

    schema_version: Literal[1, 2] = 2
    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    created_at: datetime
    model_hash: Sha256
    gallery_model_hash: Sha256 | None = Field(default=None, exclude_if=lambda found: found is None)
    data_hash: Sha256
    embedding_dim: int = Field(ge=1)
    encoder: EncoderFiles | None
    index: IndexDescription
    counts: BundleCounts
    operating_points: ActiveOperatingPoints
    files: dict[FileName, FileEntry]
