"""What a wrapped encoder must do before a threshold is bound to it: the same for one input and for many."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common.array_types import Float32s, Float64s, Texts
from common.errors import InputError
from encoder.encoder import Encoder
from encoder.wrapping.network_file import explain_failure

CHECKED_INPUTS = 64
ALONE = 16
MAX_DIFFERENCE = 1e-5
NEARLY_ONE = 0.999  # similarity of different inputs that says that the network does not see them


@dataclass(frozen=True)
class CheckedEncoder:
    """What was measured.

    Attributes:
        inputs: how many were embedded.
        difference: largest absolute difference of a vector's numbers, embedded alone and among the others.
        similarity: median similarity of two different inputs.
    """

    inputs: int
    difference: float
    similarity: float

    def describe_difference(self) -> str:
        """The difference in words."""
        return f"to {self.difference:.0e}" if self.difference else "bit by bit"

    @property
    def is_collapsed(self) -> bool:
        """Whether different inputs get nearly the same vector."""
        return self.inputs > 1 and self.similarity > NEARLY_ONE


def check_encoder(encoder: Encoder, prepared: Float32s, ids: Texts, name: str) -> CheckedEncoder:
    """Embed real inputs together and some of them alone.

    Args:
        prepared: float32 [n, *shape], n at most ``CHECKED_INPUTS``.
        ids: of those inputs, for messages.

    Raises:
        InputError: the network fails, answers another number of vectors or NaN, or a vector depends on the
            batch that its input is in.
    """
    together = _run(encoder, prepared, name)
    if together.shape != (len(prepared), encoder.dim):
        raise InputError(
            f"{name} answers {list(together.shape)} to {len(prepared)} inputs and vectors of {encoder.dim} "
            "numbers to one: its output must be [n, d] with one d; if its batch is fixed at 1, say "
            "network: {batch: 1} in the preprocessing."
        )
    broken = np.flatnonzero(~np.isfinite(together).all(axis=1))
    if len(broken):
        raise InputError(
            f"{name} answers NaN or infinity to '{ids[broken[0]]}' ({len(broken)} of {len(prepared)} "
            "inputs): check mean, std and range of the preprocessing, or export it in float32."
        )
    has_direction = np.linalg.norm(together, axis=1) > 0
    if not has_direction.any():
        raise InputError(f"{name} answers zero to all of {len(prepared)} inputs: check the preprocessing.")
    prepared = prepared[has_direction]  # a blank image may well have none
    unit = encoder.embed(prepared)
    difference = 0.0
    for row in np.unique(np.linspace(0, len(prepared) - 1, min(ALONE, len(prepared))).astype(int)):
        difference = max(
            difference, float(np.abs(encoder.embed(prepared[row : row + 1])[0] - unit[row]).max())
        )
    if not difference <= MAX_DIFFERENCE:
        raise InputError(
            f"{name} answers another vector to an input alone than among {len(prepared)} (by "
            f"{difference:.1e}, at most {MAX_DIFFERENCE:.0e}): export it in evaluation mode (model.eval()); "
            "normalisation over a batch is no encoder."
        )
    similarities = (unit @ unit.T)[np.triu_indices(len(unit), 1)]
    return CheckedEncoder(
        len(prepared), difference, float(np.median(similarities)) if len(similarities) else 0.0
    )


def _run(encoder: Encoder, prepared: Float32s, name: str) -> Float64s:
    try:
        return encoder.network.run(prepared)
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise InputError(
            f"{name} takes one input and fails on {len(prepared)} together: {explain_failure(error)}. Export "
            "it with a free first dimension, or say network: {batch: 1} in the preprocessing."
        ) from None
