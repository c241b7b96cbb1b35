"""``data.kind: text``: tables with a column of texts, or pairs or triplets of texts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from api_schemas.preprocessing import TokenInput
from common.array_types import Texts
from common.label_spelling import normalise_text
from common.progress import Track
from embeddings.tables import read_metadata_columns, read_tables
from encoder.inputs.text_input import NgramPreprocessing, TextPreprocessing, TokenPreprocessing
from training.data import tables
from training.data.decoded.cached_texts import CachedColumn
from training.data.items import ROLE, Items
from training.data.kinds.data_kind import DataKind
from training.data.pair_labels import group_matches, group_pairs, holds_matches, holds_pairs
from training.data.row_store import ComputedRows, RowStore, iterate_rows

MAX_METADATA_CHARS, LEAST_METADATA_CHARS = 1_000, 40  # of a text, whose beginning is metadata as well
MOST_METADATA = 1 << 26  # characters of all texts there: 256 MiB, as each takes the room of the longest


class Text(DataKind[TextPreprocessing]):
    """Raw inputs are text objects [n], on disk where they are large; stored are ids of n-grams or tokens,
    float32 [n, length]."""

    suffixes = frozenset((".jsonl",))

    def read(self, paths: Sequence[Path], preprocessing: TextPreprocessing | None = None) -> Items:
        """The beginning of each text is metadata as well, unless there are too many for it."""
        data = self.data
        verbatim_columns = {data.label_column, data.text_column, "id"}
        aside = CachedColumn.open_large(data, paths, self.say)
        table = read_tables(
            paths,
            verbatim_columns,
            names=self.split_columns,
            encoding=data.encoding,
            say=self.say,
            aside=aside,
        )
        if holds_pairs(table, data.label_column):
            names, labels = group_pairs(table, paths[0])
            return Items(names, labels, tables.build_row_ids(len(names)))
        if holds_matches(table, data.label_column):
            matches = group_matches(table, paths[0])
            metadata = {ROLE: matches.roles, data.text_column: _cut_texts(matches.texts)}
            ids = tables.build_row_ids(len(matches.texts))
            return Items(matches.texts, matches.labels, ids, metadata)
        texts: Any = aside and aside.collect()
        if texts is None:
            texts = tables.read_long_texts(table, data.text_column, paths[0])
        labels = tables.read_labels(table, data.label_column, paths[0], self.needs_labels)
        metadata = read_metadata_columns(table, verbatim_columns, paths[0], self.say)
        if len(texts) <= MOST_METADATA // LEAST_METADATA_CHARS:
            metadata[data.text_column] = _cut_texts(texts)
        return Items(texts, labels, tables.read_ids(table, paths[0]), metadata)

    def fit_preprocessing(self, train: Items) -> TextPreprocessing:
        """N-grams, or tokens: the length of the longest training text, capped at ``data.text.length``."""
        text = self.data.text
        if text.tokenizer is None:
            return NgramPreprocessing(text.as_input())
        from training.models.backbones.hub import load_tokenizer  # which imports torch

        tokenizer = load_tokenizer(text.tokenizer, text.special_tokens)
        longest = max(len(tokenizer.encode(normalise_text(part))) for part in iterate_rows(train.inputs))
        length = min(text.length, longest)
        rule = TokenInput(
            length=length,
            tokenizer_sha256=tokenizer.sha256,
            unicode_form="NFC",
            special_tokens=text.special_tokens,
        )
        return TokenPreprocessing(rule, tokenizer)

    def build_placeholder(self) -> TextPreprocessing:
        """N-grams as they will be, or tokens of a tokenizer that is not loaded."""
        text = self.data.text
        if text.tokenizer is None:
            return NgramPreprocessing(text.as_input())
        return TokenPreprocessing(
            TokenInput(length=text.length, tokenizer_sha256="0" * 64, unicode_form="NFC")
        )

    def store(
        self,
        parts: Mapping[str, Items],
        paths: Sequence[Path],
        preprocessing: TextPreprocessing,
        track: Track,
    ) -> dict[str, Items]:
        """Ids in memory up to ``data.memory_gb``, else computed again from the texts for each batch."""
        needed = 4 * sum(map(len, parts.values())) * math.prod(preprocessing.shape)
        if needed <= self.data.memory_gb * (1 << 30):
            return super().store(parts, paths, preprocessing, track)
        return {
            name: replace(
                raw, inputs=ComputedRows.begin(raw.inputs, preprocessing.prepare, track, "reading texts")
            )
            for name, raw in parts.items()
        }

    def prepare(self, raw: Items, preprocessing: TextPreprocessing, track: Track) -> Items:
        rows = np.empty((len(raw), *preprocessing.shape), dtype=np.float32)
        for row, text in enumerate(track(iterate_rows(raw.inputs), "reading texts", len(raw))):
            rows[row] = preprocessing.prepare([text], row)[0]
        return replace(raw, inputs=rows)


def _cut_texts(texts: NDArray[np.object_] | RowStore) -> Texts:
    """The beginning of each text, as a column of metadata."""
    longest = min(MAX_METADATA_CHARS, max(LEAST_METADATA_CHARS, MOST_METADATA // len(texts)))
    width = max(len(text[:longest]) for text in iterate_rows(texts))
    return np.fromiter((text[:longest] for text in iterate_rows(texts)), f"<U{width}", len(texts))
