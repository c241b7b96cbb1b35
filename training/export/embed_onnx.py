"""Stored items through an exported encoder: the vectors that the service would give."""

from __future__ import annotations

import numpy as np

from common.progress import Track, silent
from embeddings.embedding_set import EmbeddingSet
from encoder.encoder import BATCH, Encoder
from training.data.items import Items


def embed_items(encoder: Encoder, items: Items, track: Track = silent) -> EmbeddingSet:
    """Embed all items, prepared by the encoder's own rule; labels, ids and metadata stay.

    Raises:
        RefusedInput: an item whose vector has no direction; names its number.
    """
    vectors = []
    for start in track(range(0, len(items), BATCH), "embedding", -(-len(items) // BATCH)):
        prepared = encoder.preprocessing.normalise(items.inputs[start : start + BATCH])
        vectors.append(encoder.embed(prepared, start))
    return EmbeddingSet(np.concatenate(vectors), items.labels, items.ids, items.metadata)
