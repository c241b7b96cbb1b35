"""Hard negatives for the batches of a run: from a file, or mined again by the network as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from api_schemas.config import Config, MiningConfig
from common.array_types import RowIndices
from common.progress import Track, silent
from training.data.items import Items
from training.loop.train_state import TrainState
from training.mining.mine_negatives import mine_negatives
from training.mining.mined_file import read_triplets


def mine_again(
    state: TrainState, config: Config, vectors: Tensor, codes: RowIndices, track: Track = silent
) -> Iterator[str]:
    """Replace the run's triplets by those of these embeddings, float [rows, d]; says what was found."""
    assert config.mining is not None
    assert state.mined is not None
    unit = np.ascontiguousarray(F.normalize(vectors, dim=1).numpy())
    mined = mine_negatives(unit, codes, config.mining, config.seed + state.progress.epoch, track)
    state.mined.set_rows(mined.positives, mined.negatives)
    found = int((mined.negatives[:, 0] >= 0).sum())
    yield (
        f"Mined: {found} of {len(codes)} items have hard negatives; filters left out "
        f"{mined.n_dropped} of {mined.n_candidates} candidates."
    )
    if not found:
        yield "Warning: no item has a hard negative: loosen the filters of mining, or raise mining.top."


def read_mined_rows(mining: MiningConfig, items: Items, forms: int) -> tuple[RowIndices, RowIndices]:
    """Triplets of a file as rows of the training items; each form of an item has those of its own form."""
    positives, negatives = read_triplets(Path(str(mining.file)), items.ids, mining.negatives)
    number = np.arange(forms)
    rows = np.where(positives[:, None] >= 0, positives[:, None] * forms + number, -1)
    hard = np.where(negatives[:, None] >= 0, negatives[:, None] * forms + number[None, :, None], -1)
    return rows.reshape(-1), hard.reshape(len(rows) * forms, -1)
