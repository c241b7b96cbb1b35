"""Static token embeddings: a text is the mean of its tokens' rows in a table that exists, trained further."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.atomic_files import write_atomically
from common.errors import InputError
from encoder.wrapping.sentence_transformers import is_sentence_transformer, read_sentence_transformer
from encoder.wrapping.token_table import read_token_table
from training.models.backbones.backbone import Backbone, Shape

STATIC = "static:"
SHAPE_FILE = "table.json"
WEIGHTS = "model.safetensors"


class Static(Backbone):
    """``static:FILE.safetensors``, or the folder of such a model with its tokenizer (model2vec, WordLlama,
    sentence-transformers).

    Args:
        table: name of the table, where the file holds several matrices.
        token_weights: learn a weight of each token as well, which starts at 1.
        dropout: fraction of each text's tokens that is left out while training.
        pretrained: start from the table; rows of zero otherwise.
    """

    layouts = frozenset(("tokens",))

    def __init__(
        self,
        input_shape: Shape,
        source: str,
        vocabulary: int = 0,
        table: str | None = None,
        token_weights: bool = False,
        dropout: float = 0.0,
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        if pretrained:
            rows = torch.from_numpy(read_token_table(_find_table(source), table)).float()
        else:
            rows = torch.zeros(_read_shape(Path(source) / SHAPE_FILE))
        if vocabulary > len(rows):
            raise InputError(
                f"model.backbone: the table of {STATIC}{source} has {len(rows)} rows, its tokenizer "
                f"{vocabulary} tokens: give the tokenizer that the table was made with."
            )
        self.vectors = nn.Embedding(rows.shape[0], rows.shape[1], _weight=rows)
        self.token_weights = nn.Parameter(torch.ones(len(rows))) if token_weights else None
        self.dropout = nn.Dropout(dropout)
        self.feature_shape = (rows.shape[1],)

    def forward(self, inputs: Tensor) -> Tensor:
        """Token ids plus 1 [n, length], 0 where there is none, to [n, d]."""
        ids = (inputs.long() - 1).clamp(min=0)
        present = self.dropout((inputs > 0).to(self.vectors.weight.dtype))
        if self.token_weights is not None:
            present = present * self.token_weights[ids]
        if torch.onnx.is_in_onnx_export():  # the bag becomes a loop there, this is one step
            total = (self.vectors(ids) * present.unsqueeze(2)).sum(1)
        else:
            total = F.embedding_bag(ids, self.vectors.weight, mode="sum", per_sample_weights=present)
        features: Tensor = total / (inputs > 0).sum(1, keepdim=True).clamp(min=1)
        return features

    def save_shape(self, folder: Path) -> None:
        """The shape of the table alone."""
        folder.mkdir(exist_ok=True)
        write_atomically(folder / SHAPE_FILE, json.dumps(list(self.vectors.weight.shape)).encode())


def _find_table(source: str) -> Path:
    path = Path(source)
    if is_sentence_transformer(path):
        found = read_sentence_transformer(path).network
        if found is not None and found.suffix == ".safetensors":
            return found
    path = path / WEIGHTS if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"model.backbone: {STATIC}{source}: {path} is no file of a token table.")
    return path


def _read_shape(path: Path) -> tuple[int, int]:
    try:
        rows, width = json.loads(path.read_bytes())
        return int(rows), int(width)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} does not say the shape of a token table: {error}.") from None
