"""Signs that training went wrong, said in words."""

from __future__ import annotations

import errno
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from api_schemas.config import Config
from common.errors import InputError
from embeddings.embedding_set import EmbeddingSet
from training.loop.train_state import State
from training.loop.validation_metrics import Figures
from training.run_folder.run_layout import CONFIG

EPOCHS_TO_WAIT = 2
POOR_RECALL = 0.2
NEAR_CHANCE = 1.2  # times what guessing gives; of few classes that is more than POOR_RECALL
FLAT = 0.03  # relative change of the loss since the first epoch
ALL_ALIKE = 0.95  # mean cosine of any two items


@contextmanager
def within_limits(out: Path) -> Iterator[None]:
    """Memory and disk that run out while a run is written to ``out`` end it with one sentence.

    Raises:
        InputError: says what ran out and what to do; what was saved before is intact.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(
                f"{out}: no space left on its disk; what was saved before is intact. Make room and "
                f"{'go on with --resume' if (out / CONFIG).exists() else 'start again'}."
            ) from None
        if error.errno != errno.ENOMEM:
            raise
        raise _out_of_memory(out) from None
    except (MemoryError, torch.OutOfMemoryError):
        raise _out_of_memory(out) from None
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # torch has no class of its own for this on a CPU
            raise
        raise _out_of_memory(out) from None


def _out_of_memory(out: Path) -> InputError:
    return InputError(
        f"{out}: out of memory; what was saved before is intact. Lower sampler.batch_size, "
        "evaluation.batch_size, data.image_size or the model, or raise optimizer.accumulate."
    )


def refuse_broken_loss(loss: float, state: State) -> None:
    """Stop on a loss that is no number.

    Raises:
        InputError: names the step and the parameter group that is to blame.
    """
    if not math.isfinite(loss):
        raise _broken(f"The loss is {loss}", f"; {_largest_group(state)}", state)


def refuse_broken_gradient(norms: Sequence[float], state: State) -> None:
    """Stop on a gradient that is no number.

    Args:
        norms: of the gradient of each of the optimiser's parameter groups.

    Raises:
        InputError: names the step and the parameter group that is to blame.
    """
    for norm, group in zip(norms, state.optimizer.param_groups, strict=True):
        if not math.isfinite(norm):
            raise _broken(f"The gradient of the parameter group '{group['name']}' is {norm}", "", state)


def _broken(what: str, why: str, state: State) -> InputError:
    kept = "The last good checkpoint is kept" if state.progress.epoch else "No checkpoint was written yet"
    return InputError(
        f"{what} at step {state.progress.step + 1}{why}. {kept}: lower optimizer.lr or optimizer.clip_norm, "
        "or use precision: float32."
    )


def _largest_group(state: State) -> str:
    """The first parameter group that is not finite, else the one with the largest value."""
    largest = (-1.0, "")
    for group in state.optimizer.param_groups:
        for parameter in group["params"]:
            if not bool(torch.isfinite(parameter).all()):
                return f"the parameter group '{group['name']}' is not finite"
            largest = max(largest, (float(parameter.detach().abs().max()), group["name"]))
    return f"the largest parameter, {largest[0]:.3g}, is in the group '{largest[1]}'"


def look_for_collapse(
    items: EmbeddingSet, figures: Figures, losses: list[float], config: Config
) -> str | None:
    """A sentence when the network maps everything to one place, or does not learn at all."""
    if len(losses) < EPOCHS_TO_WAIT or figures.recall_at_1 is None:
        return None
    counts = np.bincount(items.codes)
    chance = float((counts * (counts - 1)).sum() / (len(items) * (len(items) - 1)))
    if figures.recall_at_1 > max(POOR_RECALL, NEAR_CHANCE * chance):
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
