"""Raw data through an encoder: read, prepared and embedded in blocks, so that memory is bounded."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from api_schemas.data_config import DataConfig
from api_schemas.wrap_config import WrapConfig
from common.array_types import Float32s, RowIndices, Texts
from common.console import say, track
from common.errors import ConfigError, InputError
from embeddings.embedding_set import EmbeddingSet
from encoder.encoder import Encoder
from encoder.inputs.preprocessing import RefusedInput
from encoder.wrapping.check_encoder import CHECKED_INPUTS
from index.bundle import read_bundle
from limen.pipeline.stage_encoder import StagedEncoder
from training.data.items import Items
from training.data.kinds import open_kind
from training.data.kinds.data_kind import AnyDataKind
from training.data.read_thumbnails import read_thumbnails

BLOCK = 32  # items that one thread prepares; while they are embedded, others are prepared
BLOCKS_AHEAD = 4
BLOCK_BYTES = 32 << 20  # of prepared inputs, where one takes over a megabyte
DATA_KINDS = {"image": "images", "audio": "audio", "text": "text", "vector": "embeddings", "table": "table"}
"""The kind of data that each kind of raw input is read as."""


class RawData:
    """The labelled raw items that a configuration names, still to be prepared.

    Attributes:
        items: their inputs are raw; images are files that are not decoded yet.
    """

    def __init__(self, data: DataConfig, encoder: Encoder) -> None:
        self._kind: AnyDataKind = open_kind(data, say)
        self._encoder, self._data = encoder, data
        one = 4 * encoder.preprocessing.most_numbers
        self._block = max(1, min(BLOCK, BLOCK_BYTES // one))
        self._most_sampled = max(2, min(CHECKED_INPUTS, BLOCKS_AHEAD * BLOCK_BYTES // one))
        self._skips = data.broken == "skip"
        raw = self._kind.read_all() if data.kind == "builtin" else self._read(data)
        self._kind.check_ids(raw, [np.arange(len(raw))], self._kind.source)
        self.items = raw

    def draw_sample(self) -> tuple[Float32s, Items]:
        """Some items spread over the data, as the network takes them; broken ones are left out."""
        rows = np.unique(np.linspace(0, len(self.items) - 1, self._most_sampled).astype(int))
        return self._prepare(rows)

    def embed_rows(self, rows: RowIndices) -> Float32s:
        """A few items, whole ones, as unit vectors [n, d]; raises InputError naming one that is not."""
        parts = []
        for block in np.split(rows, range(self._block, len(rows), self._block)):
            prepared, kept = self._prepare(block)
            if len(kept) < len(block):
                missing = self.items.ids[block][~np.isin(self.items.ids[block], kept.ids)]
                raise InputError(f"{self._kind.source}: '{missing[0]}' is broken.")
            parts.append(self._encoder.embed(prepared))
        return np.concatenate(parts)

    def embed(self, store: Path | None = None) -> EmbeddingSet:
        """Every item as a unit vector.

        Args:
            store: a ``.npy`` file to write the vectors to; they are mapped from there, not held in memory.

        Raises:
            InputError: an item that cannot be prepared or embedded; names it. No item is left.
        """
        n = len(self.items)
        shape = (n, self._encoder.dim)
        vectors: Float32s = (
            np.empty(shape, dtype=np.float32)
            if store is None
            else np.lib.format.open_memmap(store, mode="w+", dtype=np.float32, shape=shape)
        )
        is_kept = np.zeros(n, dtype=bool)
        for row, vector in track(self._embed_rows(), "embedding", n):
            if vector is not None:
                vectors[row], is_kept[row] = vector, True
        if isinstance(vectors, np.memmap):
            vectors.flush()
        if not is_kept.any():
            raise InputError(f"{self._kind.source}: every {self._kind.noun} is broken.")
        items = self.items
        if not is_kept.all():
            names = items.ids[~is_kept].tolist()
            say(f"Skipped {len(names)} broken {self._kind.noun}s: {', '.join(names[:5])}.")
            vectors, items = vectors[is_kept], items.subset(is_kept)
        return EmbeddingSet(vectors, items.labels, items.ids, items.metadata)

    def read_thumbnails(self, ids: Texts, side: int | None) -> Iterator[bytes | None]:
        """Thumbnails of the items with these ids, in their order; none where ``side`` is None."""
        if side is not None:
            yield from read_thumbnails(self._data, self._encoder.preprocessing, ids, side, track, say)

    def _read(self, data: DataConfig) -> Items:
        return self._kind.read(data.paths, self._encoder.preprocessing)

    def _embed_rows(self) -> Iterator[tuple[int, Float32s | None]]:
        """Row numbers, each with its vector; None where an item was left out."""
        blocks = np.split(np.arange(len(self.items)), range(self._block, len(self.items), self._block))
        waiting: deque[tuple[RowIndices, Future[tuple[Float32s, Items]]]] = deque()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for rows in blocks:
                waiting.append((rows, pool.submit(self._prepare, rows)))
                if len(waiting) >= BLOCKS_AHEAD:
                    yield from self._embed_block(*waiting.popleft())
            while waiting:
                yield from self._embed_block(*waiting.popleft())

    def _embed_block(
        self, rows: RowIndices, block: Future[tuple[Float32s, Items]]
    ) -> Iterator[tuple[int, Float32s | None]]:
        prepared, kept = block.result()
        vectors: dict[str, Float32s] = {}
        while len(kept):
            try:
                vectors |= zip(kept.ids.tolist(), self._encoder.embed(prepared), strict=True)
                break
            except RefusedInput as refused:
                if not self._skips:
                    raise self._name_refusal(kept, refused) from None
                others = np.arange(len(kept)) != refused.number
                prepared, kept = prepared[others], kept.subset(others)
        for row, name in zip(rows.tolist(), self.items.ids[rows].tolist(), strict=True):
            yield row, vectors.get(name)

    def _prepare(self, rows: RowIndices) -> tuple[Float32s, Items]:
        block = self.items.subset(rows)
        preprocessing = self._encoder.preprocessing
        if self._data.kind == "builtin":  # stored in a size of their own
            pictures = [Image.fromarray(pixels[0]) for pixels in block.inputs]
            return preprocessing.prepare(pictures), block
        try:
            kept = self._kind.prepare(block, preprocessing, lambda steps, name, total=None: steps)
        except RefusedInput as refused:
            raise self._name_refusal(block, refused) from None
        return preprocessing.normalise(kept.inputs), kept

    def _name_refusal(self, block: Items, refused: RefusedInput) -> InputError:
        return InputError(f"{self._kind.source}: item '{block.ids[refused.number]}': {refused.reason}")


def open_data(config: WrapConfig, staged: StagedEncoder) -> RawData:
    """The data of a configuration, of the kind that its encoder takes.

    Raises:
        ConfigError: another kind. InputError: data that cannot be read.
    """
    kind = DATA_KINDS[staged.encoder.preprocessing.kind]
    data = config.data
    if "kind" not in data.model_fields_set:
        data = data.model_copy(update={"kind": kind})
    elif data.kind != kind and not (data.kind == "builtin" and kind == "images"):
        raise ConfigError(f"data.kind: {staged.name} takes {kind}, found '{data.kind}'.")
    return RawData(data, staged.encoder)


def embed_with_bundle(path: Path, data: Path, *, asks: bool = False) -> EmbeddingSet:
    """Data embedded by a bundle's encoder; raises InputError for a bundle of vectors alone.

    Args:
        asks: whether it is queries, which may have a tower of their own.
    """
    bundle = read_bundle(path)
    files = bundle.manifest.encoder
    if files is None:
        raise InputError(f"{path} holds vectors and no encoder: `limen attach-encoder` gives it one.")
    encoder = Encoder.open(path, threads=0, listed=[files.network, files.preprocessing, *files.others])
    kind = DATA_KINDS[encoder.preprocessing.kind]
    encoder = encoder.queries if asks else encoder
    return RawData(DataConfig.model_validate({"kind": kind, "path": str(data)}), encoder).embed()
