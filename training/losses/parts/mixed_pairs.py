"""Pairs with fractional labels, on which a loss's generalised form is evaluated.

Venkataramanan et al., "It Takes Two to Tango: Mixup for Deep Metric Learning" (ICLR 2022, arXiv 2106.04990):
for an anchor a, ``l(a) = tau(sigma+(sum y rho+(s)) + sigma-(sum (1 - y) rho-(s)))`` with y in {0, 1} is the
clean loss; with y in [0, 1] over mixed items v it is the mixed loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Roles = Literal["items", "class_anchors", "class_references"]
"""Anchors and what is mixed for them: items, items; class vectors, items; items, class vectors."""


@dataclass(frozen=True)
class MixedPairs:
    """Anchors (rows) against mixed items v (columns), padded.

    Attributes:
        similarity: float [a, v], cosine of anchor and v.
        target: float [a, v], the fraction of v that is of the anchor's class.
        valid: bool [a, v]; the rest is padding.
        to_positive: float [a, v], cosine of the anchor to the positive that went into v.
        to_negative: float [a, v], cosine of the anchor to the negative that went into v.
    """

    similarity: Tensor
    target: Tensor
    valid: Tensor
    to_positive: Tensor
    to_negative: Tensor
