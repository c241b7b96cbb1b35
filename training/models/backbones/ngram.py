"""Text from scratch: an embedding per hashed n-gram, averaged (Joulin et al. 2017, arXiv 1607.01759)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.backbones.backbone import Backbone, Shape, check_positive


class Ngram(Backbone):
    """The mean of the vectors of a text's n-grams, then fully connected layers with ReLU.

    ``width`` is the length of an n-gram's vector, ``dropout`` the fraction of each text's n-grams that is
    left out while training.
    """

    layouts = frozenset(("ngrams",))

    def __init__(
        self, input_shape: Shape, buckets: int, width: int = 128, hidden: Shape = (), dropout: float = 0.1
    ) -> None:
        super().__init__()
        check_positive(width=[width], hidden=hidden)
        self.vectors = nn.Embedding(buckets, width, padding_idx=0)
        self.dropout = nn.Dropout(dropout)
        layers: list[nn.Module] = []
        size = width
        for out_features in hidden:
            layers += [nn.Linear(size, out_features), nn.ReLU()]
            size = out_features
        self.layers = nn.Sequential(*layers)
        self.feature_shape = (size,)

    def forward(self, inputs: Tensor) -> Tensor:
        """N-gram ids [n, length], 0 where there is none, to [n, size]."""
        ids = inputs.long()
        present = self.dropout((ids > 0).to(self.vectors.weight.dtype))
        if torch.onnx.is_in_onnx_export():  # the bag becomes a loop there, this is one step
            total = (self.vectors(ids) * present.unsqueeze(2)).sum(1)
        else:  # a quarter of the time: no vector of each n-gram of each text is written down
            total = F.embedding_bag(
                ids, self.vectors.weight, mode="sum", per_sample_weights=present, padding_idx=0
            )
        features: Tensor = self.layers(total / present.sum(1, keepdim=True).clamp(min=1.0))
        return features
