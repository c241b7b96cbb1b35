"""Metrix: mixup for metric losses, at the level of inputs, features or embeddings."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.losses import Loss
from training.losses.base import PairLoss
from training.losses.parts.loss_batch import Indices, MixedPairs, Roles
from training.objective.mixup.pair_selection import (
    AnchorPairs,
    Mixtures,
    build_anchor_pairs,
    select_anchor_negative,
    select_positive_negative,
)
from training.runtime.device import widen_half_precision

Level = Literal["input", "feature", "embedding"]
Kind = Literal["both", "positive_negative", "anchor_negative"]


class Metrix(nn.Module):
    """``clean loss + weight * mixed loss`` with items made of two items of different classes.

    Formula (eq. 9 to 12): ``v = f(lambda * x + (1 - lambda) * x')``, ``y = lambda``, lambda ~ Beta(alpha,
    alpha), one per batch; the loss's generalised form over (s(a, v), y). Positive-negative mixing takes x
    from a's class and x' from its hardest negatives; anchor-negative mixing takes x = a itself.

    At ``embedding`` level no v is built: ``s(a, v) = (lambda s(a, p) + (1 - lambda) s(a, n)) / |v|`` with
    ``|v|^2 = lambda^2 + (1 - lambda)^2 + 2 lambda (1 - lambda) s(p, n)`` needs the cosines alone.

    Args:
        loss: a loss with a generalised form (``compute_mixed_terms``).
        level: where items are mixed; ``input`` and ``feature`` need ``mixable`` and ``encode`` when called.
        block: of the backbone, counted from 1, whose output ``feature`` mixes; its last when None. Where the
            last one is only flattened and multiplied by a matrix, mixing it is mixing embeddings.
        kind: which pairs are mixed; ``both`` flips a fair coin per batch, as the authors' code does.
        alpha: of the Beta distribution; 2 in the authors' code.
        weight: of the mixed loss; 0.4 in the authors' code (0.3 for anchor-negative mixing of embeddings).
        hardest: k, the hardest negatives of each anchor that are mixed.
        positives: the positives of each anchor that are mixed, drawn evenly; all when None. One is the
            default at the levels that send each mixed item through the network.

    Reference implementation: contrastive loss at all levels and multi-similarity of embeddings alone; the
    "hardest" negatives are the wrong ones (indices into a sub-list), the mixed negative term of
    multi-similarity is lost, and anchors with positives get no anchor-negative pair. None of this here.
    """

    mixes: ClassVar[bool] = True

    def __init__(
        self,
        loss: Loss,
        level: Level = "embedding",
        block: int | None = None,
        kind: Kind = "both",
        alpha: float = 2.0,
        weight: float = 0.4,
        hardest: int = 3,
        positives: int | None = None,
    ) -> None:
        super().__init__()
        self.loss: Loss = loss
        self.level = level
        if block is not None and level != "feature":
            raise ValueError(f"block belongs to level 'feature', found level '{level}'")
        if block is not None and block < 1:
            raise ValueError(f"block is counted from 1, found {block}")
        self.kinds = _select_kinds(loss, level, kind)
        self.roles = _select_roles(loss, level)
        self.weight = weight
        self.hardest = hardest
        self.positives = positives if positives is not None or level == "embedding" else 1
        if not alpha > 0:
            raise ValueError(f"alpha must be above 0, found {alpha:g}")
        self.beta = torch.distributions.Beta(alpha, alpha)

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices: Indices | None = None,
        *,
        mixable: Tensor | None = None,
        encode: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Float [n, d] and int [n] to a scalar.

        Args:
            mixable: float [n, ...], the inputs or feature maps that gave the embeddings.
            encode: from mixed inputs or feature maps [v, ...] to embeddings [v, d].
        """
        loss = self.loss
        with torch.autocast(embeddings.device.type, enabled=False):
            items = widen_half_precision(embeddings)
            pairs = build_anchor_pairs(loss, self.roles, items, labels, indices)
            kind = self.kinds[int(torch.randint(len(self.kinds), ()))]
            select = select_positive_negative if kind == "positive_negative" else select_anchor_negative
            mixtures = select(pairs, self.hardest, self.positives)
            clean: Tensor
            if self.level == "embedding" and self._can_share_cosines(indices):
                clean = loss.reducer(loss.compute_terms_of_cosines(*pairs.clean), embeddings, labels)
            else:
                clean = loss(embeddings, labels, indices)
        if not mixtures.valid.any():
            return clean
        fraction = float(self.beta.sample())
        if self.level == "embedding":
            mixed_pairs = mix_embeddings(mixtures, fraction)
        elif mixable is None or encode is None:
            raise TypeError(f"metrix at {self.level} level needs mixable and encode")
        else:
            mixed_pairs = _mix_and_encode(pairs, mixtures, fraction, mixable, encode)
        with torch.autocast(embeddings.device.type, enabled=False):
            terms = loss.compute_mixed_terms(mixed_pairs)
            mixed: Tensor = loss.reducer(terms, pairs.anchors, pairs.anchor_labels)
        return clean + self.weight * mixed

    def _can_share_cosines(self, indices: Indices | None) -> bool:
        """Whether the clean loss can be read off the cosines too; a miner weights class losses' items."""
        if type(self.loss).compute_terms_of_cosines is Loss.compute_terms_of_cosines:
            return False
        return isinstance(self.loss, PairLoss) or indices is None


def mix_embeddings(mixtures: Mixtures, fraction: float) -> MixedPairs:
    """The cosines of mixed unit vectors, from cosines alone; ``fraction`` is lambda."""
    to_first = mixtures.to_first
    along = fraction * to_first + (1 - fraction) * mixtures.to_negative
    length = fraction**2 + (1 - fraction) ** 2 + 2 * fraction * (1 - fraction) * mixtures.first_to_negative
    similarity = along / length.clamp(min=1e-12).sqrt()
    target = torch.full_like(similarity, fraction)
    return MixedPairs(similarity, target, mixtures.valid, to_first, mixtures.to_negative)


def _mix_and_encode(
    pairs: AnchorPairs,
    mixtures: Mixtures,
    fraction: float,
    mixable: Tensor,
    encode: Callable[[Tensor], Tensor],
) -> MixedPairs:
    rows, columns = mixtures.valid.nonzero(as_tuple=True)
    first, negative = mixtures.first[rows, columns], mixtures.negative[rows, columns]
    # two anchors often select the same two items: each mixture passes the network once
    couples, slot = torch.unique(torch.stack([first, negative]), dim=1, return_inverse=True)
    mixed = encode(fraction * mixable[couples[0]] + (1 - fraction) * mixable[couples[1]])
    vectors = F.normalize(widen_half_precision(mixed), dim=1)
    similarity = torch.zeros_like(mixtures.to_first)
    values = (pairs.anchors[rows] * vectors[slot]).sum(1)
    similarity = similarity.index_put((rows, columns), values)
    target = torch.full_like(similarity, fraction)
    return MixedPairs(similarity, target, mixtures.valid, mixtures.to_first, mixtures.to_negative)


def _select_roles(loss: Loss, level: Level) -> Roles:
    """Class vectors have no inputs to mix: there the items are mixed, with class vectors as anchors."""
    assert loss.roles is not None
    return "class_anchors" if loss.roles == "class_references" and level != "embedding" else loss.roles


def _select_kinds(loss: Loss, level: Level, kind: Kind) -> list[Kind]:
    """The kinds to flip between; raises ValueError for what cannot be mixed."""
    if loss.roles is None:
        raise ValueError(f"metrix does not fit {type(loss).__name__}, which has no generalised form")
    if loss.roles != "items" and level != "embedding":
        if kind == "anchor_negative":
            raise ValueError(f"class vectors cannot be mixed with items at {level} level")
        return ["positive_negative"]
    return ["positive_negative", "anchor_negative"] if kind == "both" else [kind]
