"""Class means of an earlier model: from its run folder, its bundle or a file of its embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from api_schemas.manifest import ITEMS_FILE, MANIFEST_FILE, VECTORS_FILE
from common.errors import InputError
from embeddings.files import open_embeddings

RUN_EMBEDDINGS = Path("embeddings", "train.npz")


def read_class_means(source: Path, dimension: int) -> dict[str, Tensor]:
    """Label to the unit mean of its unit embeddings, float32 [d].

    Raises:
        ValueError: a source that cannot be read, or embeddings of another length.
    """
    try:
        if (source / MANIFEST_FILE).is_file():
            items = open_embeddings(source / VECTORS_FILE, source / ITEMS_FILE).read()
        else:
            items = open_embeddings(source / RUN_EMBEDDINGS if source.is_dir() else source).read()
    except InputError as error:
        raise ValueError(str(error).rstrip(".")) from None
    if items.vectors.shape[1] != dimension:
        raise ValueError(
            f"embeddings of {source} have {items.vectors.shape[1]} numbers, embedding_dim is {dimension}: "
            "both must be the same"
        )
    labels, codes = np.unique(items.labels, return_inverse=True)
    sums = torch.zeros(len(labels), dimension, dtype=torch.float64)
    sums.index_add_(0, torch.from_numpy(codes), torch.from_numpy(np.asarray(items.vectors)).double())
    return dict(zip(labels.tolist(), F.normalize(sums, dim=1).float(), strict=True))
