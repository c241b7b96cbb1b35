"""A generation with the items written and deleted since, from which the view of readers is built."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from common.array_types import Bools, UnitVectors
from common.progress import Track, silent
from decision.class_evidence import EvidenceScorer
from decision.decider import Decider, compute_densities
from embeddings.arrow_columns import parse_instants
from embeddings.embedding_set import EmbeddingSet
from index.items.class_sums import ClassSums
from index.items.columns import ColumnKind
from index.items.metadata import collect_metadata
from index.items.stored_item import StoredItem
from index.items.thumbnail_file import ThumbnailFile
from index.search.gallery_view import GalleryView
from index.search.generation import Generation
from index.store.item_store import Changes


class WrittenItem(NamedTuple):
    """An item written since the generation was built, with its local densities by key."""

    item: StoredItem
    densities: Mapping[str, np.float32]


@dataclass(frozen=True, eq=False)
class Overlay:
    """A generation with its changes; immutable, so that a half-made change is never seen.

    Attributes:
        main: the generation, or None where there are written items alone.
        live: bool [n], which of its rows still count.
        written: items written since, by id.
        changed: the sums of each class whose items changed since; empty unless a point scores classes.
        deciders: the points that may decide; items have the densities that these need.
    """

    main: Generation | None
    live: Bools
    written: Mapping[str, WrittenItem]
    changed: Mapping[str, ClassSums]
    deciders: Sequence[Decider]

    @classmethod
    def from_generation(cls, main: Generation | None, deciders: Sequence[Decider] = ()) -> Self:
        """A generation without changes, prepared for these points."""
        prepared = None if main is None else prepare_generation(main, deciders)
        return cls(prepared, np.ones(0 if main is None else len(main), dtype=bool), {}, {}, deciders)

    def prepare(self, deciders: Sequence[Decider]) -> Self:
        """The same items for further points."""
        dead = [] if self.main is None else self.main.items.ids.take(np.flatnonzero(~self.live))
        written = [entry.item for entry in self.written.values()]
        touched = [*dead, *self.written]
        return self.from_generation(self.main, deciders).apply(Changes(written, touched))

    def apply(self, changes: Changes) -> Self:
        """With further items written and deleted; what they leave alone is not computed again."""
        touched = set(changes.touched)
        replaced = {name: self.written[name] for name in touched if name in self.written}
        written = {name: entry for name, entry in self.written.items() if name not in replaced}
        live, rows = self.live, []
        if self.main is not None:
            touched_rows = (self.main.items.get_row(name) for name in touched)
            rows = [row for row in touched_rows if row is not None and self.live[row]]
            if rows:
                live = live.copy()
                live[rows] = False
        new = self._add_densities({item.id: item for item in changes.written})
        changed = self.changed
        if score_classes(self.deciders):
            changed = self._update_sums(list(replaced.values()), rows, list(new.values()))
        return type(self)(self.main, live, written | new, changed, self.deciders)

    def _add_densities(self, items: Mapping[str, StoredItem]) -> dict[str, WrittenItem]:
        if not items:
            return {}
        vectors = np.stack([item.vector for item in items.values()])
        densities = compute_densities(
            self.deciders, vectors, lambda: np.array([item.label for item in items.values()], dtype=np.str_)
        )
        return {
            name: WrittenItem(item, {key: values[row] for key, values in densities.items()})
            for row, (name, item) in enumerate(items.items())
        }

    def _update_sums(
        self, replaced: Sequence[WrittenItem], rows: Sequence[int], new: Sequence[WrittenItem]
    ) -> Mapping[str, ClassSums]:
        """The sums of changed classes once written items and rows are gone and others come."""
        gone, keys = [*replaced], _get_keys_of_classes(self.deciders)
        if rows and self.main is not None:
            items, vectors = self.main.items, self.main.vectors[rows]
            gone += [
                WrittenItem(
                    StoredItem("", items.classes[items.label_codes[row]], vector),
                    {key: items.densities[key][row] for key in keys},
                )
                for row, vector in zip(rows, vectors, strict=True)
            ]
        entries = [*gone, *new]
        if not entries:
            return self.changed
        labels: dict[str, int] = {}
        codes = [labels.setdefault(entry.item.label, len(labels)) for entry in entries]
        difference = ClassSums.from_rows(
            np.stack([entry.item.vector for entry in entries]),
            np.array(codes),
            len(labels),
            {key: np.array([entry.densities[key] for entry in entries]) for key in keys},
            signs=np.repeat([-1, 1], [len(gone), len(new)]),
        )
        changed = dict(self.changed)
        for label, code in labels.items():
            now = difference.select(slice(code, code + 1))
            of_main = self._get_sums(label)
            before = changed.get(label, of_main)
            changed[label] = now if before is None else before.add(now)
            if of_main is None and not changed[label].counts[0]:
                del changed[label]
        return changed

    def _get_sums(self, label: str) -> ClassSums | None:
        """The sums of a class of the generation; None if it has no such class."""
        code = None if self.main is None else self.main.items.get_code(label)
        if code is None or self.main is None or self.main.class_sums is None:
            return None
        return self.main.class_sums.select(slice(code, code + 1))

    def build_view(self, dim: int, fields: Mapping[str, ColumnKind]) -> GalleryView:
        """The snapshot for readers."""
        live = None
        if self.main is not None and not self.live.all():
            live = self.main.build_live_rows(self.live)
        buffer = None
        if self.written:
            entries = list(self.written.values())
            items = collect_items([[entry.item for entry in entries]], len(entries), dim, fields=fields)
            densities = {
                key: np.array([entry.densities[key] for entry in entries])
                for key in get_density_keys(self.deciders)
            }
            buffer = Generation.build_buffer(items, densities)
        return GalleryView(self.main, live, buffer, dict(fields), self.changed)


def prepare_generation(main: Generation, deciders: Sequence[Decider], track: Track = silent) -> Generation:
    """A generation with the local densities and class sums that these points need; itself if it has them."""
    items, sums = main.items, main.class_sums
    added = compute_densities(deciders, main.vectors, items.build_labels, items.densities)
    if added:
        items = replace(items, densities={**items.densities, **added})
    keys = _get_keys_of_classes(deciders)
    if score_classes(deciders) and (sums is None or not sums.densities.keys() >= set(keys)):
        densities = {key: items.densities[key] for key in keys}
        sums = ClassSums.from_rows(
            main.vectors, items.label_codes, len(items.classes), densities, track=track
        )
    if items is not main.items or sums is not main.class_sums:
        main = replace(main, items=items, class_sums=sums)
    for decider in deciders:
        if sums is not None and isinstance(decider.scorer, EvidenceScorer):
            sums.prepare(decider.scorer)
    return main


def score_classes(deciders: Sequence[Decider]) -> bool:
    """Whether any of these points scores a query with a whole class."""
    return any(isinstance(decider.scorer, EvidenceScorer) for decider in deciders)


def get_density_keys(deciders: Sequence[Decider]) -> list[str]:
    """The keys of the local densities that these points need."""
    keys = (decider.scorer.density_key for decider in deciders)
    return list(dict.fromkeys(key for key in keys if key is not None))


def _get_keys_of_classes(deciders: Sequence[Decider]) -> list[str]:
    """The keys of the local densities that are summed over classes."""
    return get_density_keys([decider for decider in deciders if isinstance(decider.scorer, EvidenceScorer)])


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


def iterate_thumbnails(
    generation: Generation, thumbnails: ThumbnailFile, block: int
) -> Iterator[dict[str, bytes]]:
    """The thumbnails of a generation's rows by id, a block of rows at a time."""
    for number, of_rows in enumerate(thumbnails.iterate(block)):
        ids = generation.items.ids.take(number * block + np.arange(len(of_rows)))
        yield {item_id: of_row for item_id, of_row in zip(ids, of_rows, strict=True) if of_row is not None}


def collect_items(
    blocks: Iterable[Sequence[StoredItem]],
    n: int,
    dim: int,
    file: Path | None = None,
    fields: Mapping[str, ColumnKind] | None = None,
) -> EmbeddingSet:
    """Items as one set; with a file its vectors are written there and mapped, not held in memory.

    ``fields`` are the kinds of metadata fields; those of times are read from their text.
    """
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
    columns: dict[str, Any] = dict(collect_metadata(metadata))
    for name in columns.keys() & {name for name, kind in (fields or {}).items() if kind == "time"}:
        columns[name] = parse_instants(columns[name])
    return EmbeddingSet(rows, np.array(labels, dtype=np.str_), np.array(ids, dtype=np.str_), columns)
