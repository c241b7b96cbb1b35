"""Counts on disk, with a checksum, tied to the state of the store and to the score they were made with."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from zipfile import BadZipFile

import numpy as np

from api_schemas.base import SCHEMA_VERSION, Schema
from api_schemas.operating_point import Score
from common.atomic_files import hash_file, write_atomically
from common.errors import LimenError
from embeddings.embedding_set import EmbeddingSet
from evaluation.gallery_counts.item_counts import ItemCounts

COUNTS_FILE, ABOUT_FILE = "gallery-counts.npz", "gallery-counts.json"


class AboutCounts(Schema):
    """What the counts of a gallery are of.

    ``sequence`` is the number of the last write that they surely hold; ``threshold`` that of the rates of
    classes in the report; ``grid`` the thresholds of OPIS, and ``grid_from`` whose they are;
    ``noise_floor`` of the last report in full.
    """

    schema_version: int = SCHEMA_VERSION
    model_hash: str
    score: Score
    sequence: int
    threshold: float | None = None
    grid: list[float]
    grid_from: Literal["holdout", "gallery"]
    noise_floor: float | None
    sha256: str


@dataclass(frozen=True, eq=False)
class SavedCounts:
    """Counts, and what they are of."""

    about: AboutCounts
    counts: ItemCounts


def save_counts(folder: Path, counts: ItemCounts, about: AboutCounts) -> None:
    """Write counts; a crash leaves the old ones, the new ones, or a pair that is not taken for either."""
    buffer = io.BytesIO()
    items = counts.items
    np.savez(
        buffer,
        ids=items.ids,
        labels=items.labels,
        vectors=items.vectors,
        thresholds=counts.thresholds,
        levels=counts.levels,
    )
    write_atomically(folder / COUNTS_FILE, buffer.getvalue(), private=True)
    hashed = about.model_copy(update={"sha256": hash_file(folder / COUNTS_FILE)})
    write_atomically(folder / ABOUT_FILE, hashed.model_dump_json().encode(), private=True)


def read_about(folder: Path) -> AboutCounts | None:
    """What saved counts are of; None where there are none."""
    try:
        return AboutCounts.load(folder / ABOUT_FILE)
    except LimenError:
        return None


def open_counts(folder: Path) -> SavedCounts | None:
    """Counts that were saved; None where there are none, or damaged ones: then all is counted anew."""
    about = read_about(folder)
    try:
        if about is None or hash_file(folder / COUNTS_FILE) != about.sha256:
            return None
        with np.load(folder / COUNTS_FILE, allow_pickle=False) as archive:
            items = EmbeddingSet(archive["vectors"], archive["labels"], archive["ids"])
            return SavedCounts(about, ItemCounts(items, archive["thresholds"], archive["levels"]))
    except (OSError, ValueError, KeyError, BadZipFile):
        return None
