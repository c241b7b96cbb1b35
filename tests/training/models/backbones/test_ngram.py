"""The mean of n-gram vectors."""

from __future__ import annotations

import torch

from training.models.backbones.ngram import Ngram


def test_ngrams_are_averaged_and_padding_counts_nothing() -> None:
    backbone = Ngram((4,), buckets=10, width=3, dropout=0.0).eval()
    vectors = backbone.vectors.weight
    features = backbone(torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
    torch.testing.assert_close(features[0], (vectors[1] + vectors[2]) / 2)
    torch.testing.assert_close(features[1], torch.zeros(3))
