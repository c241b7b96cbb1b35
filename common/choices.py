"""What fields of documents and flags of commands may be, for those who do not need the documents themselves.

Commands show them in their help, which must not wait for pydantic.
"""

from __future__ import annotations

from typing import Literal

ScoreChoice = Literal["auto", "cosine", "density", "conjnorm"]
Aggregate = Literal["nearest", "mean_of_class", "evidence"]
AggregateChoice = Literal["auto", Aggregate]
EncoderPrecision = Literal["int8", "fp16"]
"""Precisions that ``limen export --precision`` quantises an encoder's weights to."""
USUAL_CONFIDENCE = 0.95
MOST_VECTORS = 1_000  # of one object that a query has
SMALLEST_THUMBNAIL, LARGEST_THUMBNAIL = 16, 512  # pixels of the longer side
UNNAMED = "unnamed"
"""The model of vectors that came without a name."""
