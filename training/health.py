"""Signs that training went wrong, said in words."""

from __future__ import annotations

import math

import numpy as np
import torch

from api_schemas.config import Config
from api_schemas.errors import InputError
from decision.embeddings import EmbeddingSet
from training.state import State
from training.validate import Figures

EPOCHS_TO_WAIT = 2
POOR_RECALL = 0.2
FLAT = 0.03  # relative change of the loss since the first epoch
ALL_ALIKE = 0.95  # mean cosine of any two items


def refuse_broken(what: str, value: float, state: State) -> None:
    """Stop on a loss or gradient that is no number.

    Raises:
        InputError: names the step and the first parameter group that holds a broken value.
    """
    if math.isfinite(value):
        return
    group = "none of the parameters"
    for candidate in state.optimizer.param_groups:
        tensors = [t for p in candidate["params"] for t in (p, p.grad) if t is not None]
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
            group = f"the parameter group '{candidate['name']}'"
            break
    raise InputError(
        f"The {what} is {value} at step {state.progress.step + 1}, and {group} is broken: the last good "
        "checkpoint is kept; lower optimizer.lr, set optimizer.clip_norm or use precision: float32."
    )


def look_for_collapse(
    items: EmbeddingSet, figures: Figures, losses: list[float], config: Config
) -> str | None:
    """A sentence when the network maps everything to one place, or does not learn at all."""
    if len(losses) < EPOCHS_TO_WAIT or figures.recall_at_1 is None or figures.recall_at_1 > POOR_RECALL:
        return None
    alike = float(np.square(items.vectors.mean(axis=0, dtype=np.float64)).sum())
    flat = abs(losses[0] - losses[-1]) <= FLAT * abs(losses[0])
    if not flat and alike < ALL_ALIKE:
        return None
    return (
        f"The network seems to have collapsed: recall@1 {figures.recall_at_1:.3f}, the loss went from "
        f"{losses[0]:.4g} to {losses[-1]:.4g}, two items have cosine {alike:.2f} on average. Lower "
        f"optimizer.lr (now {config.optimizer.lr:g}), lengthen schedule.warmup or use precision: float32."
    )
