"""A teacher's features of items: from a file of vectors, or by the encoder of a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from api_schemas.config import TeacherConfig
from api_schemas.data_config import DataConfig
from api_schemas.manifest import PREPROCESSING_FILE
from common.array_types import Float32s, RowIndices, Texts
from common.errors import ConfigError, InputError
from common.progress import Track, silent
from embeddings.embedding_set import EmbeddingSet
from embeddings.files import open_embeddings
from encoder.encoder import Encoder
from encoder.inputs import load_preprocessing
from encoder.inputs.preprocessing import Preprocessing
from training.data.items import Items, Unlabelled
from training.data.kinds import open_kind

ITEMS_AT_ONCE = 64


def check_teacher_kind(teacher: TeacherConfig, data: DataConfig) -> None:
    """Raises ConfigError when there is no such teacher, or its encoder takes another kind of input."""
    if teacher.bundle is None:
        if not Path(str(teacher.vectors)).is_file():
            raise ConfigError(
                f"teacher.vectors: {teacher.vectors} is not a file: give an embeddings file (.npz, .parquet) "
                "with the items' ids."
            )
        return
    if not (Path(teacher.bundle) / PREPROCESSING_FILE).is_file():
        raise ConfigError(
            f"teacher.bundle: {teacher.bundle} has no {PREPROCESSING_FILE}: give a bundle or the exported "
            "encoder of a run, or teacher.vectors."
        )
    taken = load_preprocessing(Path(teacher.bundle) / PREPROCESSING_FILE).kind
    given = open_kind(data).build_placeholder().kind
    if taken != given:
        raise ConfigError(
            f"teacher.bundle: the encoder of {teacher.bundle} takes {taken} inputs, data.kind is "
            f"'{data.kind}': give a bundle of the same kind, or its vectors of these items."
        )


def load_teacher_features(
    teacher: TeacherConfig,
    data: DataConfig,
    items: Items,
    track: Track = silent,
    paths: Sequence[Path] | None = None,
    needs_labels: bool = True,
) -> Float32s:
    """Features float32 [n, d] of the items, in their order and of the length that the teacher gave them.

    Args:
        paths: that the items come from; those of the data unless given.

    Raises:
        InputError: an item that the teacher does not know, or a feature that is not finite.
    """
    if teacher.vectors is not None:
        source, features = teacher.vectors, _read_vectors(Path(teacher.vectors), items.ids, track)
    else:
        source = str(teacher.bundle)
        features = _embed(Path(source), data, paths, needs_labels, items.ids, track)
    broken = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(broken):
        raise InputError(f"{source}: the vector of item '{items.ids[broken[0]]}' is not finite.")
    return features


def _read_vectors(path: Path, ids: Texts, track: Track) -> Float32s:
    """The rows of a file by id, as they are; files without ids are numbered."""
    file = open_embeddings(path)
    known = np.asarray(file.columns.get("ids", np.arange(file.rows))).astype(np.str_)
    rows = _find_rows(known, ids, str(path))
    position = np.full(file.rows, -1)
    position[rows] = np.arange(len(rows))
    features, start = np.empty((len(rows), file.dimension), dtype=np.float32), 0
    for block in track(file.blocks(), "reading the teacher's vectors"):
        wanted = position[start : start + len(block)]
        features[wanted[wanted >= 0]] = block[wanted >= 0]
        start += len(block)
    return features


def embed_by_teacher(
    teacher: TeacherConfig,
    data: DataConfig,
    items: Items,
    track: Track = silent,
    paths: Sequence[Path] | None = None,
) -> EmbeddingSet:
    """The teacher's features of items as unit rows; see ``load_teacher_features``."""
    features = load_teacher_features(teacher, data, items, track, paths)
    source = str(teacher.vectors or teacher.bundle)
    return EmbeddingSet.from_arrays(features, items.labels, items.ids, items.metadata, source=source)


def load_unlabelled(
    teacher: TeacherConfig, data: DataConfig, preprocessing: Preprocessing, track: Track = silent
) -> Unlabelled:
    """The teacher's own data, prepared as the training items are, and its features of it."""
    paths = [Path(str(teacher.data))]
    kind = open_kind(data)
    kind.needs_labels = False
    raw = kind.read(paths, preprocessing)
    kind.check_ids(raw, [np.arange(len(raw))], str(teacher.data))
    items = kind.store({"unlabelled": raw}, paths, preprocessing, track)["unlabelled"]
    return Unlabelled(items, load_teacher_features(teacher, data, items, track, paths, needs_labels=False))


def _embed(
    folder: Path,
    data: DataConfig,
    paths: Sequence[Path] | None,
    needs_labels: bool,
    ids: Texts,
    track: Track,
) -> Float32s:
    """The items read again, as the teacher's own rule prepares them, through its encoder: unit rows."""
    encoder = Encoder.open(folder, threads=0)
    kind, used = open_kind(data), data.paths if paths is None else paths
    kind.needs_labels = needs_labels
    raw = kind.read_all() if data.kind == "builtin" else kind.read(used, encoder.preprocessing)
    wanted = {"train": raw.subset(_find_rows(raw.ids, ids, kind.source))}
    prepared = kind.store(wanted, used, encoder.preprocessing, track)["train"]
    if len(prepared) < len(ids):
        raise InputError(f"{folder}: the teacher's encoder cannot read all of the training {kind.noun}s.")
    starts = range(0, len(ids), ITEMS_AT_ONCE)
    blocks = (prepared.inputs[start : start + ITEMS_AT_ONCE] for start in track(starts, "asking the teacher"))
    return np.concatenate([encoder.embed(encoder.preprocessing.normalise(block)) for block in blocks])


def _find_rows(known: Texts, wanted: Texts, source: str) -> RowIndices:
    """Row of each wanted id; raises InputError naming the first that is missing."""
    order = np.argsort(known, kind="stable")
    position = np.searchsorted(known[order], wanted).clip(max=len(known) - 1)
    rows: RowIndices = order[position]
    missing = np.flatnonzero(known[rows] != wanted)
    if len(missing):
        raise InputError(
            f"{source}: the teacher has no vector of {len(missing)} training items, e.g. "
            f"'{wanted[missing[0]]}': its ids must be those of the data."
        )
    return rows
