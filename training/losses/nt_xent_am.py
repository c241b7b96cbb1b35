"""NT-Xent with an additive margin."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from training.losses.base import LossTerms
from training.losses.nt_xent import NTXent


class NTXentAM(NTXent):
    """NT-Xent whose positives must stand out by a margin.

    Formula: ``mean over positive pairs of -log(e^{(s_ap - m) / t} / (e^{(s_ap - m) / t} + sum_n e^{s_an /
    t}))``, t the temperature. Every item of the batch is an anchor, and all items of other classes are its
    negatives: the symmetric form.

    Shapes: embeddings [n, d], labels [n], references [m, d].

    Parameters:
        temperature: 0.03, margin: 0.1 (0.2 in the authors' best runs, of 0.05 to 0.5). ramp_steps: 0; the
            margin rises from 0 along half a cosine over so many steps, the authors' over half of the run.
            average: pairs or anchors, as in nt_xent.

    Related losses: nt_xent without a margin; CosFace has the margin against class vectors.

    Reference implementation: two views of each item, one positive each; here all items of the class.
    """

    name = "nt_xent_am"
    paper = "Lepage and Dehak, Additive Margin in Contrastive Self-Supervised Frameworks, 2024"
    when = "Verification without class vectors: pairs that must be told apart by one threshold."

    steps: Tensor

    def __init__(
        self,
        temperature: float = 0.03,
        margin: float = 0.1,
        ramp_steps: int = 0,
        average: Literal["pairs", "anchors"] = "pairs",
    ) -> None:
        super().__init__(temperature, average)
        if not (0 <= margin <= 2 and ramp_steps >= 0):
            raise ValueError(f"margin must be 0 to 2, ramp_steps 0 or more, found {margin:g}, {ramp_steps}")
        self.margin, self.ramp_steps = margin, ramp_steps
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def compute_pair_terms(self, matrix: Tensor, positive: Tensor, negative: Tensor) -> LossTerms:
        margined = torch.where(positive, matrix - self.compute_margin(), matrix)
        return super().compute_pair_terms(margined, positive, negative)

    def compute_margin(self) -> float:
        """The margin at this step."""
        done = 1.0 if not self.ramp_steps else min(1.0, int(self.steps) / self.ramp_steps)
        return self.margin * (0.5 - 0.5 * math.cos(math.pi * done))

    def end_step(self, lr_factor: float = 1.0) -> None:
        """Count the steps that the margin rises over."""
        self.steps += 1
