"""Metrix: mixup for metric losses, at the level of inputs, features or embeddings."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.losses.base import Indices, Loss, PairLoss
from training.losses.parts.mixed_pairs import MixedPairs, Roles
from training.objective.mixup.pair_selection import Choice, Side, anchor_negative, positive_negative, sides
from training.runtime.precision import at_least_float32

Level = Literal["input", "feature", "embedding"]
Kind = Literal["both", "positive_negative", "anchor_negative"]


class Metrix(nn.Module):
    """``clean loss + weight * mixed loss`` with items made of two items of different classes.

    Formula (eq. 9 to 12): ``v = f(share * x + (1 - share) * x')``, ``y = share``, share ~ Beta(alpha, alpha),
    one per batch; the loss's generalised form over (s(a, v), y). Positive-negative mixing takes x from a's
    class and x' from its hardest negatives; anchor-negative mixing takes x = a itself.

    At ``embedding`` level no v is built: ``s(a, v) = (share s(a, p) + (1 - share) s(a, n)) / |v|`` with
    ``|v|^2 = share^2 + (1 - share)^2 + 2 share (1 - share) s(p, n)`` needs the cosines alone.

    Args:
        loss: a loss with a generalised form (``Mixable``).
        level: where items are mixed; ``input`` and ``feature`` need ``mixable`` and ``encode`` when called.
        kind: which pairs are mixed; ``both`` flips a fair coin per batch, as the authors' code does.
        alpha: of the Beta distribution; 2 in the authors' code.
        weight: of the mixed loss; 0.4 in the authors' code (0.3 for anchor-negative mixing of embeddings).
        hardest: k, the hardest negatives of each anchor that are mixed.
        positives: the positives of each anchor that are mixed, drawn evenly; all when None. One is the
            default at the levels that send each mixed item through the network.

    In released code: contrastive loss at all levels and multi-similarity of embeddings alone; the
    "hardest" negatives are the wrong ones (indices into a sub-list), the mixed negative term of
    multi-similarity is lost, and anchors with positives get no anchor-negative pair. None of this here.
    """

    mixes: ClassVar[bool] = True

    def __init__(
        self,
        loss: Loss,
        level: Level = "embedding",
        kind: Kind = "both",
        alpha: float = 2.0,
        weight: float = 0.4,
        hardest: int = 3,
        positives: int | None = None,
    ) -> None:
        super().__init__()
        self.loss: Loss = loss
        self.level = level
        self.kinds = _kinds(loss, level, kind)
        self.roles = _roles(loss, level)
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
        indices_tuple: Indices | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
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
            references = (ref_emb, ref_labels) if self.level == "embedding" else (None, None)
            items = at_least_float32(embeddings)
            pair = sides(loss, self.roles, items, labels, *references, indices_tuple)
            kind = self.kinds[int(torch.randint(len(self.kinds), ()))]
            pick = positive_negative if kind == "positive_negative" else anchor_negative
            choice = pick(pair, self.hardest, self.positives)
            clean: Tensor
            if self.level == "embedding" and self._shares_cosines(indices_tuple):
                clean = loss.reducer(loss.terms_of_cosines(*pair.clean), embeddings, labels)
            else:
                clean = loss(embeddings, labels, indices_tuple, ref_emb, ref_labels)
        if not choice.valid.any():
            return clean
        share = float(self.beta.sample())
        if self.level == "embedding":
            pairs = mixed_embeddings(pair, choice, share)
        elif mixable is None or encode is None:
            raise TypeError(f"metrix at {self.level} level needs mixable and encode")
        else:
            pairs = _mixed_and_encoded(pair, choice, share, mixable, encode)
        with torch.autocast(embeddings.device.type, enabled=False):
            mixed: Tensor = loss.reducer(loss.mixed(pairs), pair.anchors, pair.anchor_labels)
        return clean + self.weight * mixed

    def _shares_cosines(self, indices: Indices | None) -> bool:
        """Whether the clean loss can be read off the cosines too; a miner weights class losses' items."""
        loss = type(self.loss)
        if loss.terms_of_cosines is Loss.terms_of_cosines:
            return False
        return isinstance(self.loss, PairLoss) or indices is None


def mixed_embeddings(pair: Side, choice: Choice, share: float) -> MixedPairs:
    """The cosines of mixed unit vectors, from cosines alone."""
    to_first = choice.to_first
    along = share * to_first + (1 - share) * choice.to_negative
    length = share**2 + (1 - share) ** 2 + 2 * share * (1 - share) * choice.first_to_negative
    similarity = along / length.clamp(min=1e-12).sqrt()
    target = torch.full_like(similarity, share)
    return MixedPairs(similarity, target, choice.valid, to_first, choice.to_negative)


def _mixed_and_encoded(
    pair: Side, choice: Choice, share: float, mixable: Tensor, encode: Callable[[Tensor], Tensor]
) -> MixedPairs:
    rows, columns = choice.valid.nonzero(as_tuple=True)
    first, negative = choice.first[rows, columns], choice.negative[rows, columns]
    # two anchors often choose the same two items: each mixture passes the network once
    couples, slot = torch.unique(torch.stack([first, negative]), dim=1, return_inverse=True)
    mixed = encode(share * mixable[couples[0]] + (1 - share) * mixable[couples[1]])
    vectors = F.normalize(at_least_float32(mixed), dim=1)
    similarity = torch.zeros_like(choice.to_first)
    values = (pair.anchors[rows] * vectors[slot]).sum(1)
    similarity = similarity.index_put((rows, columns), values)
    return MixedPairs(
        similarity, torch.full_like(similarity, share), choice.valid, choice.to_first, choice.to_negative
    )


def _roles(loss: Loss, level: Level) -> Roles:
    """Class vectors have no inputs that could be mixed: there the items are mixed, for the classes' sake."""
    assert loss.roles is not None
    return "class_anchors" if loss.roles == "class_references" and level != "embedding" else loss.roles


def _kinds(loss: Loss, level: Level, kind: Kind) -> list[Kind]:
    """The kinds to flip between; raises ValueError for what cannot be mixed."""
    if loss.roles is None:
        raise ValueError(f"metrix does not fit {type(loss).__name__}, which has no generalised form")
    if loss.roles != "items" and level != "embedding":
        if kind == "anchor_negative":
            raise ValueError(f"class vectors cannot be mixed with items at {level} level")
        return ["positive_negative"]
    return ["positive_negative", "anchor_negative"] if kind == "both" else [kind]
