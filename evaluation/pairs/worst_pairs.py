"""The worst pairs of a walk, with their ids, so that a page can show them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from api_schemas.diagnosis import WorstPair
from common.array_types import Float32s
from embeddings.embedding_set import EmbeddingSet
from evaluation.pairs.pairs import Pairs


class WorstPairs:
    """The pairs with the highest scores of those added, or the lowest; worst first, ties by position."""

    def __init__(self, most: int, lowest: bool = False) -> None:
        self._most, self._sign = most, np.float32(-1 if lowest else 1)
        self._a, self._b = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        self._scores = np.zeros(0, dtype=np.float32)

    def add(self, a: NDArray[Any], b: NDArray[Any], scores: Float32s) -> None:
        """Look at further pairs, given by their positions."""
        scores = self._sign * scores
        if len(self._scores) == self._most > 0:
            hard = scores >= self._scores[-1]
            a, b, scores = a[hard], b[hard], scores[hard]
        a, b = np.concatenate([self._a, a]), np.concatenate([self._b, b])
        scores = np.concatenate([self._scores, scores])
        kept = np.lexsort((b, a, -scores))[: self._most]
        self._a, self._b, self._scores = a[kept], b[kept], scores[kept]

    def name_pairs(self, pairs: Pairs, items: EmbeddingSet, references: EmbeddingSet) -> list[WorstPair]:
        """The pairs by the ids of the two sets that ``pairs`` were arranged from, with their scores."""
        return [
            WorstPair(
                a=str(items.ids[i]),
                b=str(references.ids[j]),
                label_a=str(items.labels[i]),
                label_b=str(references.labels[j]),
                score=float(score),
            )
            for i, j, score in zip(
                pairs.a.rows[self._a], pairs.b.rows[self._b], self._sign * self._scores, strict=True
            )
        ]
