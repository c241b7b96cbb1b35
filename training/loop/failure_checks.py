"""Checks for training that goes wrong: no memory, no disk, no finite loss or gradient, a collapse."""

from __future__ import annotations

import errno
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from api_schemas.config import Config
from api_schemas.manifest import CONFIG_FILE
from common.errors import InputError
from embeddings.embedding_set import EmbeddingSet
from training.loop.train_state import TrainState
from training.loop.validation_metrics import ValidationMetrics

EPOCHS_TO_WAIT = 2
POOR_RECALL = 0.2
NEAR_CHANCE = 1.2  # times what guessing gives; of few classes that is more than POOR_RECALL
FLAT_LOSS = 0.03  # relative change of the loss since the first epoch
COLLAPSED_COSINE = 0.95  # mean of any two items


@contextmanager
def explain_exhausted_resources(out: Path) -> Iterator[None]:
    """Turn running out of memory or disk, while a run is written to ``out``, into one sentence.

    Raises:
        InputError: says what ran out and what to do; what was saved before is intact.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(
                f"{out}: no space left on its disk; what was saved before is intact. Make room and "
                f"{'go on with --resume' if (out / CONFIG_FILE).exists() else 'start again'}."
            ) from None
        if error.errno != errno.ENOMEM:
            raise
        raise _build_memory_error(out) from None
    except (MemoryError, torch.OutOfMemoryError):
        raise _build_memory_error(out) from None
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # torch has no class of its own for this on a CPU
            raise
        raise _build_memory_error(out) from None


def _build_memory_error(out: Path) -> InputError:
    return InputError(
        f"{out}: out of memory; what was saved before is intact. Lower sampler.batch_size, "
        "evaluation.batch_size, data.image_size or the model, or raise optimizer.accumulate."
    )


def check_finite_loss(loss: float, state: TrainState) -> None:
    """Stop on a loss that is infinite or NaN.

    Raises:
        InputError: names the step and the parameter group that is to blame.
    """
    if not math.isfinite(loss):
        raise _build_divergence_error(f"The loss is {loss}", f"; {_describe_largest_group(state)}", state)


def check_finite_gradients(norms: Sequence[float], state: TrainState) -> None:
    """Stop on a gradient that is infinite or NaN.

    Args:
        norms: of the gradient of each of the optimiser's parameter groups.

    Raises:
        InputError: names the step and the parameter group that is to blame.
    """
    for norm, group in zip(norms, state.optimizer.param_groups, strict=True):
        if not math.isfinite(norm):
            raise _build_divergence_error(
                f"The gradient of the parameter group '{group['name']}' is {norm}", "", state
            )


def _build_divergence_error(what: str, why: str, state: TrainState) -> InputError:
    kept = "The last good checkpoint is kept" if state.progress.epoch else "No checkpoint was written yet"
    return InputError(
        f"{what} at step {state.progress.step + 1}{why}. {kept}: lower optimizer.lr or optimizer.clip_norm, "
        "or use precision: float32."
    )


def _describe_largest_group(state: TrainState) -> str:
    """The first parameter group that is not finite, else the one with the largest value."""
    largest = (-1.0, "")
    for group in state.optimizer.param_groups:
        for parameter in group["params"]:
            if not bool(torch.isfinite(parameter).all()):
                return f"the parameter group '{group['name']}' is not finite"
            largest = max(largest, (float(parameter.detach().abs().max()), group["name"]))
    return f"the largest parameter, {largest[0]:.3g}, is in the group '{largest[1]}'"


def detect_collapse(
    items: EmbeddingSet, metrics: ValidationMetrics, losses: list[float], config: Config
) -> str | None:
    """A sentence when the network maps everything to one point, or does not learn at all."""
    if len(losses) < EPOCHS_TO_WAIT or metrics.recall_at_1 is None:
        return None
    counts = np.bincount(items.codes)
    chance = float((counts * (counts - 1)).sum() / (len(items) * (len(items) - 1)))
    if metrics.recall_at_1 > max(POOR_RECALL, NEAR_CHANCE * chance):
        return None
    mean_cosine = float(np.square(items.vectors.mean(axis=0, dtype=np.float64)).sum())
    is_flat = abs(losses[0] - losses[-1]) <= FLAT_LOSS * abs(losses[0])
    if not is_flat and mean_cosine < COLLAPSED_COSINE:
        return None
    return (
        f"The network seems to have collapsed: recall@1 {metrics.recall_at_1:.3f}, the loss went from "
        f"{losses[0]:.4g} to {losses[-1]:.4g}, two items have cosine {mean_cosine:.2f} on average. Lower "
        f"optimizer.lr (now {config.optimizer.lr:g}), lengthen schedule.warmup or use precision: float32."
    )
