"""A generation with the items written and deleted since, from which the view of readers is built."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from common.array_types import Bools, Float32s, UnitVectors
from common.progress import Track
from decision.decider import Decider, compute_densities
from embeddings.embedding_set import EmbeddingSet
from index.items.columns import ColumnKind
from index.items.metadata import collect_metadata
from index.items.stored_item import StoredItem
from index.search.gallery_view import GalleryView
from index.search.generation import Generation
from index.store.item_store import Changes

Densities = Callable[[UnitVectors], dict[str, Float32s]]


@dataclass(frozen=True, eq=False)
class Overlay:
    """A generation with its changes; immutable, so that a half-made change is never seen.

    Attributes:
        main: the generation, or None where there are written items alone.
        live: bool [n], which of its rows still count.
        written: items written since, by id.
    """

    main: Generation | None
    live: Bools
    written: Mapping[str, StoredItem]

    @classmethod
    def from_generation(cls, main: Generation | None) -> Self:
        """A generation without changes."""
        return cls(main, np.ones(0 if main is None else len(main), dtype=bool), {})

    def apply(self, changes: Changes) -> Self:
        """With further items written and deleted."""
        touched = set(changes.touched)
        kept = {name: item for name, item in self.written.items() if name not in touched}
        live = self.live
        if self.main is not None:
            touched_rows = (self.main.items.get_row(name) for name in touched)
            rows = [row for row in touched_rows if row is not None]
            if rows:
                live = live.copy()
                live[rows] = False
        return type(self)(self.main, live, kept | {item.id: item for item in changes.written})

    def build_view(self, dim: int, densities: Densities, fields: Mapping[str, ColumnKind]) -> GalleryView:
        """The snapshot for readers; ``densities`` computes the local densities of the items written."""
        live = None
        if self.main is not None and not self.live.all():
            live = self.main.build_live_rows(self.live)
        buffer = None
        if self.written:
            items = collect_items([list(self.written.values())], len(self.written), dim)
            buffer = Generation.build_buffer(items, densities(items.vectors))
        return GalleryView(self.main, live, buffer, dict(fields))


def add_densities(main: Generation, deciders: Sequence[Decider]) -> Generation:
    """A generation that has the local densities these points need of every item; itself if it does."""
    known = main.items.densities
    added = compute_densities(deciders, main.vectors, known)
    if not added:
        return main
    return replace(main, items=replace(main.items, densities={**known, **added}))


def iterate_items(generation: Generation, block: int, track: Track) -> Iterator[list[StoredItem]]:
    """A generation's rows as items, a block at a time."""
    starts = range(0, len(generation), block)
    for start in track(starts, "items", len(starts)):
        rows = np.arange(start, min(start + block, len(generation)))
        items = generation.items
        labels = [items.classes[code] for code in items.label_codes[rows].tolist()]
        metadata = items.get_metadata_block(start, len(rows))
        vectors = np.array(generation.vectors[rows])
        yield [
            StoredItem(*item) for item in zip(items.ids.take(rows), labels, vectors, metadata, strict=True)
        ]


def collect_items(
    blocks: Iterable[Sequence[StoredItem]], n: int, dim: int, file: Path | None = None
) -> EmbeddingSet:
    """Items as one set; with a file its vectors are written there and mapped, not held in memory."""
    ids: list[str] = []
    labels: list[str] = []
    metadata: list[Mapping[str, Any]] = []
    held: list[UnitVectors] = []
    with nullcontext() if file is None else file.open("wb") as out:
        if out is not None:  # written, not mapped: a write to a map on a full disk kills
            header = {"descr": "<f4", "fortran_order": False, "shape": (n, dim)}
            np.lib.format.write_array_header_1_0(out, header)
        for block in blocks:
            vectors = np.stack([item.vector for item in block])
            if out is None:
                held.append(vectors)
            else:
                out.write(np.ascontiguousarray(vectors, dtype="<f4").data)
            ids += [item.id for item in block]
            labels += [item.label for item in block]
            metadata += [item.metadata for item in block]
    if file is None:
        rows = np.concatenate(held).astype(np.float32, copy=False)
    else:
        rows = np.load(file, mmap_mode="r", allow_pickle=False).view(np.ndarray)
    columns = {name: np.array(values, dtype=object) for name, values in collect_metadata(metadata).items()}
    return EmbeddingSet(rows, np.array(labels, dtype=np.str_), np.array(ids, dtype=np.str_), columns)
