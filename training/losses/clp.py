"""Contrastive learning penalty."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.base import CosineSimilarity, Loss, LossTerms, build_element_terms
from training.losses.parts.loss_batch import LossBatch
from training.losses.parts.pair_masks import compute_masked_logsumexp


class CLP(Loss):
    """Hard negatives are pushed away from the anchor, and kept near those that they are positives of.

    Formula: ``mean_a (1 - l) mean_p -log(e^{s_ap / t} / (e^{s_ap / t} + sum_{n in H(a)} e^{s_an / t})) + l
    mean_{n in H(a)} (1 - mean_{q in P(n)} s_nq)``, H(a) the anchor's nearest negatives, P(n) the other items
    of the negative's class, t the temperature; over the anchors that have a positive and a negative.

    Shapes: embeddings [n, d], labels [n], references [m, d].

    Parameters:
        temperature: 0.02, penalty: 0.1 (l), negatives: 4 of the batch, the authors'.

    Related losses: nt_xent with all negatives and no penalty.

    Reference implementation: a query that the negative document does answer is written by a language model;
    here it is an item of the negative's class. Theirs finds the negatives by ANCE, and works with one query
    on a device alone.
    """

    name = "clp"
    paper = "Yu, Efficient Fine-Tuning Methodology of Text Embedding Models: CLP, 2024, arXiv 2412.17364"
    when = "Fine-tuning an encoder that is good already on its hardest negatives."

    def __init__(self, temperature: float = 0.02, penalty: float = 0.1, negatives: int = 4) -> None:
        super().__init__(distance=CosineSimilarity())
        if temperature <= 0 or not 0 <= penalty <= 1 or negatives < 1:
            raise ValueError("temperature must be above 0, penalty from 0 to 1, negatives at least 1")
        self.temperature, self.penalty, self.negatives = temperature, penalty, negatives

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        positive, negative = batch.build_pair_masks()
        kept = positive.any(1) & negative.any(1)
        if not kept.any():
            return self.zero_losses()
        references = F.normalize(batch.references, dim=1)
        similarity = (F.normalize(batch.embeddings, dim=1) @ references.T)[kept]
        positive, negative = positive[kept], negative[kept]

        count = min(self.negatives, negative.shape[1])
        nearest = similarity.detach().masked_fill(~negative, -torch.inf).topk(count, dim=1).indices
        hard, is_hard = similarity.gather(1, nearest), negative.gather(1, nearest)
        rivals = compute_masked_logsumexp(hard / self.temperature, is_hard, dim=1)[:, None]
        logits = similarity / self.temperature
        contrast = _mean_rows(torch.logaddexp(logits, rivals) - logits, positive)

        same = batch.reference_labels[:, None] == batch.reference_labels
        same.fill_diagonal_(False)
        pull = (1 - _mean_rows(references @ references.T, same))[nearest]
        penalty = _mean_rows(pull, is_hard & same.any(1)[nearest])
        return build_element_terms((1 - self.penalty) * contrast + self.penalty * penalty, kept)


def _mean_rows(values: Tensor, keep: Tensor) -> Tensor:
    """Mean over the kept entries of each row, float [n]; 0 where there is none."""
    return torch.where(keep, values, 0).sum(1) / keep.sum(1).clamp(min=1)
