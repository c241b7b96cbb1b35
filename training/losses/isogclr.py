"""iSogCLR: a temperature of its own for every training item."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from training.losses.base import LossTerms, build_element_terms
from training.losses.item_loss import ItemLoss, average_by_row
from training.losses.parts.loss_batch import LossBatch
from training.losses.parts.pair_masks import compute_masked_logsumexp


class ISogCLR(ItemLoss):
    """Each training item contrasts at a temperature that it learns: high where many others are like it.

    Formula: minimises ``mean_i t_i log mean_n e^{(s_in - s_ip) / t_i} + t_i rho`` over the embeddings and the
    temperatures t_i, s_ip the mean over the item's positives. A step gives ``mean_i mean_n w_in (s_in -
    s_ip)``, ``w_in = e^{(s_in - s_ip) / t_i} / u_i`` without gradient, u_i the running mean of the
    exponentials over the item's negatives; then ``t_i`` moves against ``log u_i + rho - mean_n w_in (s_in -
    s_ip) / t_i``.

    Shapes: embeddings [n, d], labels [n], references [m, d].

    Parameters:
        temperature: 0.1 to start with, from 0.05 (least) to 0.7 (most). rho: 0.3 (0.1 to 0.5 for one kind of
            data): the higher, the higher temperatures get. gamma: 0.9, of the newest exponentials in u.
            rate: 0.01 of the temperatures, with beta: 0.9 of the newest slope.

    Related losses: nt_xent with one temperature, and the batch's own negatives alone.

    Reference implementation: LibAUC's values from cosines instead of differences, whose slope is the same.
    State is kept for the rows of the training part, or for classes where labels are all that is known; a
    checkpoint holds it.
    """

    name = "isogclr"
    paper = "Qiu et al., Not All Semantics are Created Equal, ICML 2023, arXiv 2305.11965"
    when = "Two views without labels, of items that are rare and items that many others resemble."

    temperatures: Tensor
    totals: Tensor
    slopes: Tensor

    def __init__(
        self,
        class_sizes: Sequence[int],
        temperature: float = 0.1,
        least: float = 0.05,
        most: float = 0.7,
        rho: float = 0.3,
        gamma: float = 0.9,
        rate: float = 0.01,
        beta: float = 0.9,
    ) -> None:
        super().__init__(class_sizes)
        if not 0 < least <= temperature <= most or not 0 < gamma <= 1 or not 0 < beta <= 1:
            raise ValueError(
                "temperatures must be 0 < least <= temperature <= most, gamma and beta above 0, at most 1"
            )
        self.least, self.most, self.rho = least, most, rho
        self.gamma, self.rate, self.beta = gamma, rate, beta
        self.register_buffer("temperatures", torch.full((self.num_items,), temperature))
        self.register_buffer("totals", torch.zeros(self.num_items))  # u; 0 until an item was seen
        self.register_buffer("slopes", torch.zeros(self.num_items))

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        positive, negative = batch.build_pair_masks()
        rows = self.get_rows(batch)
        kept = positive.any(1) & negative.any(1)
        if not kept.any():
            return self.zero_losses()
        rows, positive, negative = rows[kept], positive[kept], negative[kept]
        similarity = self.distance(batch.embeddings, batch.references)[kept]
        own = torch.where(positive, similarity, 0).sum(1) / positive.sum(1)
        apart = similarity - own[:, None]
        count = negative.sum(1).to(apart.dtype)
        learns = self.learns_from(batch)
        with torch.no_grad():
            temperature = self.temperatures[rows].to(apart.dtype)
            scaled = apart / temperature[:, None]
            now = (compute_masked_logsumexp(scaled, negative, dim=1) - count.log()).exp()
            before = self.totals[rows].to(apart.dtype)
            total = torch.where(before > 0, (1 - self.gamma) * before + self.gamma * now, now)
            weights = torch.where(negative, (scaled - total.log()[:, None]).exp(), 0) / count[:, None]
            if learns:
                slope = total.log() + self.rho - (weights * scaled).sum(1)
                self._move(rows, total, slope)
        return build_element_terms((weights * torch.where(negative, apart, 0)).sum(1), kept)

    def collect_figures(self) -> dict[str, float]:
        """The mean temperature of the items that were seen."""
        seen = self.temperatures[self.totals > 0]
        return {"isogclr_temperature": float(seen.mean())} if len(seen) else {}

    def _move(self, rows: Tensor, totals: Tensor, slopes: Tensor) -> None:
        """One step of the rows' state; the views of an item count together."""
        distinct, mean = average_by_row(torch.stack([totals, slopes], 1), rows)
        self.totals[distinct] = mean[:, 0].to(self.totals)
        moment = (1 - self.beta) * self.slopes[distinct] + self.beta * mean[:, 1].to(self.slopes)
        self.slopes[distinct] = moment
        moved = self.temperatures[distinct] - self.rate * moment
        self.temperatures[distinct] = moved.clamp(self.least, self.most)
