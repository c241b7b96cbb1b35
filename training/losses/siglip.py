"""SigLIP's sigmoid loss of pairs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from api_schemas.operating_point import Probability
from training.losses.base import CosineSimilarity, LossTerms, PairLoss, build_element_terms
from training.losses.ge2e import build_scale


class SigLIP(PairLoss):
    """Every pair is a question of its own, yes or no: logistic regression on the cosine.

    Formula: ``mean_i sum_{j != i} softplus(-y_ij (w s_ij + b))``, y_ij = 1 for two items of one class, else
    -1. w and b are learned, w by its logarithm.

    Shapes: embeddings [n, d], labels [n], references [m, d].

    Parameters:
        scale: 10 and offset, where w and b start; the offset is null, the log-odds of a positive pair in the
            first batch, which is right for cosines of 0 (-10 in the paper, at 32,768 pairs of one positive).

    Related losses: binomial_deviance, whose scales and threshold are set by hand and which weighs both kinds
        alike; ge2e and nt_xent, where the pairs of an anchor compete.

    What it gives beside the embedding: ``sigmoid(w s + b)`` is the probability that a pair of the training's
    batches matches. The run and its bundle keep w, b and the fraction of positives they hold for
    (``match_probability.json``).

    Reference implementation: the same sum, over the batch's size and not its square; one positive for each
    text or picture, here all of the class.
    """

    name = "siglip"
    paper = "Zhai et al., Sigmoid Loss for Language Image Pre-Training, ICCV 2023, arXiv 2303.15343"
    when = "Scores that are to be read as probabilities; positives that must not compete with each other."
    lr_factor = 1.0

    pairs: Tensor

    def __init__(self, scale: float = 10.0, offset: float | None = None) -> None:
        super().__init__(distance=CosineSimilarity())
        self.log_scale, self.offset = build_scale(scale, offset or 0.0)
        self.starts_from_batch = offset is None
        self.register_buffer("pairs", torch.zeros(2, dtype=torch.float64))  # positive and all, seen so far

    @property
    def match_probability(self) -> Probability | None:  # type: ignore[override]
        """What was learned; None before the first batch."""
        positive, total = self.pairs.tolist()
        if not 0 < positive < total:
            return None
        parameters: dict[str, float | list[float]] = {
            "slope": float(self.log_scale.detach().exp()),
            "intercept": float(self.offset.detach()),
        }
        return Probability(kind="platt", parameters=parameters, prior=positive / total)

    def compute_pair_terms(self, matrix: Tensor, positive: Tensor, negative: Tensor) -> LossTerms:
        if self.training and torch.is_grad_enabled():
            if self.starts_from_batch and not self.pairs.any() and positive.any() and negative.any():
                with torch.no_grad():
                    self.offset.copy_((positive.sum() / negative.sum()).log())
            self.pairs += torch.stack([positive.sum(), positive.sum() + negative.sum()])
        logits = self.log_scale.exp() * matrix + self.offset
        losses = F.softplus(torch.where(positive, -logits, logits))
        return build_element_terms(torch.where(positive | negative, losses, 0).sum(1))
