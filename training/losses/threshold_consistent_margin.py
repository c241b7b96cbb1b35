"""Threshold-consistent margin loss."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from training.losses.base import CosineSimilarity, Loss, LossTerms, build_scalar_terms
from training.losses.parts.loss_batch import LossBatch
from training.losses.parts.pair_masks import compute_masked_mean, select_quantile

MEMORY = 0.95  # of the running quantiles: about the last 20 batches


class ThresholdConsistentMargin(Loss):
    """Pulls every positive pair above one similarity and pushes every negative pair below another.

    Formula: ``lambda_plus * mean over positive pairs with s <= margin_plus of (margin_plus - s)
    + lambda_minus * mean over negative pairs with s >= margin_minus of (s - margin_minus)``; a mean over no
    pair is 0. Made to be added to another loss, so that one threshold holds for all classes.

    Shapes: embeddings [n, d], labels [n], references [m, d].

    Parameters:
        lambda_plus, lambda_minus: 1. margin_plus, margin_minus: null; the run's own quantiles then: the
            similarity that a fraction ``far`` of the batches' negative pairs reaches, and the one that a
            fraction ``frr`` of the positive pairs misses, as running means over some 20 batches, without
            gradient. The paper's fixed margins are 0.9 and 0.5 (the library's).
        far: 0.1, the lower end of the scores that OPIS is measured over. frr: 0.9.
        balance: ``pairs`` as above; ``classes`` (ours) takes the mean within each anchor class first, then
            over the classes that have a violating pair, so that no large or hard class outweighs the rest.

    Related losses: the contrastive loss on cosines with both hinges, averaged over violating pairs alone:
    each has the gradient lambda / count however hard it is, so few violating pairs mean large steps each.

    Reference implementation: the library indexes the batch, not ``ref_emb``, when references are given (wrong
    values, or an index error); here they are used. Values agree otherwise, at the same fixed margins. Where
    scores lie depends on the base loss and moves while it trains: a fixed 0.5 is above nearly all negative
    pairs of one loss (nothing is pushed) and below those of another.
    """

    name = "threshold_consistent_margin"
    paper = "Zhang et al., Threshold-Consistent Margin Loss, ICLR 2024, arXiv 2307.04047"
    when = "Added to another loss when one threshold must hold for all classes."

    quantiles: Tensor
    steps: Tensor

    def __init__(
        self,
        lambda_plus: float = 1.0,
        lambda_minus: float = 1.0,
        margin_plus: float | None = None,
        margin_minus: float | None = None,
        far: float = 0.1,
        frr: float = 0.9,
        balance: Literal["pairs", "classes"] = "pairs",
    ) -> None:
        super().__init__(distance=CosineSimilarity())
        if balance not in ("pairs", "classes"):
            raise ValueError(f"balance must be 'pairs' or 'classes', found {balance!r}")
        if not (0 < far < 1 and 0 < frr < 1):
            raise ValueError(f"far and frr must be above 0 and below 1, found {far:g} and {frr:g}")
        self.lambda_plus, self.lambda_minus = lambda_plus, lambda_minus
        self.margin_plus, self.margin_minus = margin_plus, margin_minus
        self.far, self.frr = far, frr
        self.balance = balance
        self.register_buffer("quantiles", torch.zeros(2))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        positive, negative = batch.build_pair_masks()
        similarity = self.distance(batch.embeddings, batch.references)
        upper, lower = self._compute_margins(similarity, positive, negative, batch.has_references)
        too_far = positive & (similarity <= upper)
        too_near = negative & (similarity >= lower)
        compute_mean = _compute_class_balanced_mean if self.balance == "classes" else _compute_pair_mean
        return build_scalar_terms(
            self.lambda_plus * compute_mean(upper - similarity, too_far, batch.labels)
            + self.lambda_minus * compute_mean(similarity - lower, too_near, batch.labels)
        )

    def collect_figures(self) -> dict[str, float]:
        """The margins where they follow the run."""
        names = ("tcm_margin_plus", "tcm_margin_minus")
        given = (self.margin_plus, self.margin_minus)
        values = zip(names, given, self.quantiles.tolist(), strict=True)
        return {name: value for name, fixed, value in values if fixed is None}

    @torch.no_grad()
    def _compute_margins(
        self, similarity: Tensor, positive: Tensor, negative: Tensor, has_references: bool
    ) -> tuple[float | Tensor, float | Tensor]:
        """The upper and the lower margin, given or running; a batch before any other gives its own."""
        if self.margin_plus is not None and self.margin_minus is not None:
            return self.margin_plus, self.margin_minus
        quantiles = self.quantiles.to(similarity.dtype)
        is_first = int(self.steps) == 0
        if is_first or (self.training and not has_references):
            own = torch.stack(
                [
                    select_quantile(similarity[positive], self.frr, quantiles[0]),
                    select_quantile(similarity[negative], 1 - self.far, quantiles[1]),
                ]
            )
            quantiles = own if is_first else MEMORY * quantiles + (1 - MEMORY) * own
            if self.training and not has_references:
                self.quantiles.copy_(quantiles)
                self.steps += 1
        upper, lower = quantiles.unbind()
        return (
            upper if self.margin_plus is None else self.margin_plus,
            lower if self.margin_minus is None else self.margin_minus,
        )


def _compute_pair_mean(values: Tensor, keep: Tensor, labels: Tensor) -> Tensor:
    return compute_masked_mean(values, keep)


def _compute_class_balanced_mean(values: Tensor, keep: Tensor, labels: Tensor) -> Tensor:
    classes, codes = torch.unique(labels, return_inverse=True)
    sums = values.new_zeros(len(classes)).index_add(0, codes, torch.where(keep, values, 0).sum(1))
    counts = values.new_zeros(len(classes)).index_add(0, codes, keep.sum(1).to(values.dtype))
    return compute_masked_mean(sums / counts.clamp(min=1), counts > 0)
