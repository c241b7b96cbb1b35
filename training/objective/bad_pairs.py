"""Bad pairs: positives whose loss, over the whole run so far, is far below or above that of others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from api_schemas.config import BadPairsConfig
from common.errors import ConfigError
from training.losses import Loss
from training.losses.item_loss import average_by_row

KINDS = {"element", "pos_pair"}


class BadPairs(nn.Module):
    """Weighs the losses of items, or of positive pairs by their anchor, before they are reduced.

    Dynamic bad pair mining (Lan et al., ICLR 2024, openreview K2c04ulKXn): every training item has the mean
    m_i of its losses so far. Over all items with ``warmup`` losses m has a mean mu and a deviation sigma. An
    item is bad where ``m_i <= mu - low sigma`` (noisy: its views agree in noise) or ``m_i >= mu + high
    sigma`` (faulty: they have nothing in common). Its loss l counts ``e^{-(l - mu)^2 / (2 sigma^2)}`` times.

    Reference implementation: the weight there is the density of the normal distribution, which is above 1
    where sigma is below 0.4; later epochs count more in m; all items are judged once an epoch. Here the
    weight is at most 1 and items are judged in every step.

    Args:
        reducer: the loss's own. num_items: rows of the training part.

    Attributes:
        rows: int [n], the row of each item of the batch, set by the objective; labels without it.
    """

    rows: Tensor | None = None
    sums: Tensor
    counts: Tensor

    def __init__(self, reducer: nn.Module, num_items: int, config: BadPairsConfig) -> None:
        super().__init__()
        self.reducer, self.config = reducer, config
        self.register_buffer("sums", torch.zeros(num_items))
        self.register_buffer("counts", torch.zeros(num_items, dtype=torch.int64))

    def forward(self, terms: dict[str, dict[str, Any]], embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss's terms to a scalar, as the library calls its reducers."""
        rows, weighed = labels if self.rows is None else self.rows, {}
        for name, term in terms.items():
            losses, kind = term["losses"], term["reduction_type"]
            if kind in KINDS and isinstance(losses, Tensor) and losses.numel():
                anchors = term["indices"] if kind == "element" else term["indices"][0]
                term = term | {"losses": self._weigh(losses, rows[anchors])}
            weighed[name] = term
        total: Tensor = self.reducer(weighed, embeddings, labels)
        return total

    def collect_figures(self) -> dict[str, float]:
        """The fractions of the judged items that are noisy and that are faulty."""
        means, low, high = self._compute_limits()
        if not len(means):
            return {}
        return {
            "noisy_pairs": float((means <= low).float().mean()),
            "faulty_pairs": float((means >= high).float().mean()),
        }

    @torch.no_grad()
    def _compute_weights(self, losses: Tensor, rows: Tensor) -> Tensor:
        means, low, high = self._compute_limits()
        if len(means) < 2 or not low < high:
            return torch.ones_like(losses)
        own = self.sums[rows] / self.counts[rows].clamp(min=1)
        is_bad = (self.counts[rows] >= self.config.warmup) & ((own <= low) | (own >= high))
        centre, deviation = means.mean().to(losses), means.std(correction=0).to(losses)
        return torch.where(is_bad, torch.exp(-(((losses - centre) / deviation) ** 2) / 2), 1.0)

    def _weigh(self, losses: Tensor, rows: Tensor) -> Tensor:
        weights = self._compute_weights(losses, rows)
        if self.training and torch.is_grad_enabled():
            distinct, now = average_by_row(losses.detach(), rows)
            self.sums[distinct] += now.to(self.sums)
            self.counts[distinct] += 1
        return losses * weights

    def _compute_limits(self) -> tuple[Tensor, Tensor, Tensor]:
        """Means of the judged items, float [k], and the limits of what is not bad."""
        judged = self.counts >= self.config.warmup
        means = self.sums[judged] / self.counts[judged]
        if not len(means):
            return means, self.sums.new_zeros(()), self.sums.new_zeros(())
        centre, deviation = means.mean(), means.std(correction=0)
        return means, centre - self.config.low * deviation, centre + self.config.high * deviation


def track_bad_pairs(loss: Loss, config: BadPairsConfig, num_items: int, embedding_dim: int) -> None:
    """Let a loss weigh its bad pairs.

    Raises:
        ConfigError: a loss that has no loss of its own for each item or positive pair.
    """
    items = torch.randn(4, embedding_dim, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 0, 1, 1])
    was_training = loss.training
    with torch.no_grad():
        terms = loss.eval().compute_loss(items, labels, None, items, labels)
    loss.train(was_training)
    kinds = {term["reduction_type"] for term in terms.values()}
    if loss.follows_teacher or not kinds & KINDS or kinds - KINDS - {"neg_pair"}:
        raise ConfigError(
            f"loss ({loss.name}): bad_pairs weighs losses of single items or positive pairs, of which this "
            "loss has none: leave it out, or choose e.g. nt_xent, sup_con or contrastive."
        )
    loss.reducer = BadPairs(loss.reducer, num_items, config)
