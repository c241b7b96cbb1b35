"""The library's other losses that run on labels alone, under Limen's names and with checked parameters.

Left out: those that cannot take every batch that a sampler here gives (SmoothAP needs classes of equal size,
N-pairs depends on the order of the batch, the signal-to-noise ratio of a zero vector is infinite), whose
values depend on numpy's rules for torch scalars (SphereFace, large-margin softmax), or that want more than
labels.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pytorch_metric_learning import losses
from torch import Tensor

from training.losses.base import Loss, LossTerms
from training.losses.class_vector_base import check_class_codes
from training.losses.parts.loss_batch import Indices, LossBatch

Variant = Literal["Ds", "Dq", "Iu", "Ib", "O"]


class PmlLoss(Loss):
    """Base of the losses that are the library's; a mean of no losses is 0, and not NaN as there."""

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        """The library's terms, or its zero losses where all of them are empty."""
        terms = super().compute_terms(batch)
        is_empty = all(
            torch.is_tensor(term["losses"]) and not term["losses"].numel() for term in terms.values()
        )
        return self.zero_losses() if is_empty else terms


class PmlClassVectorLoss(PmlLoss):
    """Base of those over class vectors: labels must be class codes."""

    takes_references = False
    num_classes: int

    def __init__(self, num_classes: int, embedding_dim: int, **settings: float) -> None:
        super().__init__(num_classes=num_classes, embedding_size=embedding_dim, **settings)

    def compute_terms(self, batch: LossBatch) -> LossTerms:
        """The library's terms; raises InputError for labels that are no class codes."""
        check_class_codes(batch.labels, self.num_classes)
        return super().compute_terms(batch)


class Angular(PmlLoss, losses.AngularLoss):
    """The angle at a negative over a positive pair must be below a bound.

    Formula: ``mean over positive pairs of log(1 + sum_n exp(4 t (a + p) . n - 2 (1 + t) a . p))``, t the
    squared tangent of alpha, in degrees.

    Reference implementation: the library's ``AngularLoss``, unchanged.
    """

    name = "angular"
    paper = "Wang et al., ICCV 2017, arXiv 1708.01682"
    when = "Classes of very different extent: an angle, not a distance, is what counts."

    def __init__(self, alpha: float = 40) -> None:
        super().__init__(alpha=alpha)


class _FiniteSlopeAtTarget:
    """Keeps the target's cosine off 1 and -1, where its angle has no finite slope."""

    def modify_cosine_of_target_classes(self, cosines: Tensor) -> Tensor:
        changed: Tensor = super().modify_cosine_of_target_classes(_clamp_cosines(cosines))  # type: ignore[misc]
        return changed


class ArcFace(PmlClassVectorLoss, _FiniteSlopeAtTarget, losses.ArcFaceLoss):
    """Softmax over class vectors with an additive margin on the target's angle.

    Formula: ``mean_i -log softmax_c(scale * z_ic)_{y_i}``, z the cosines to the class vectors, the target's
    ``cos(theta + margin)``, margin in degrees.

    Reference implementation: the library's ``ArcFaceLoss``; the gradient of an item on its class vector is no
    number there, and 0 here.
    """

    name = "arcface"
    paper = "Deng et al., CVPR 2019, arXiv 1801.07698"
    when = "Many classes with many items, faces above all; start it with a warm-up."

    def __init__(self, num_classes: int, embedding_dim: int, margin: float = 28.6, scale: float = 64) -> None:
        super().__init__(num_classes, embedding_dim, margin=margin, scale=scale)


class CosFace(PmlClassVectorLoss, losses.CosFaceLoss):
    """Softmax over class vectors with an additive margin on the target's cosine.

    Formula: ``mean_i -log softmax_c(scale * z_ic)_{y_i}``, z the cosines to the class vectors, the target's
    ``cos(theta) - margin``.

    Reference implementation: the library's ``CosFaceLoss``, unchanged.
    """

    name = "cosface"
    paper = "Wang et al., CVPR 2018, arXiv 1801.09414"
    when = "As arcface, easier to train."

    def __init__(self, num_classes: int, embedding_dim: int, margin: float = 0.35, scale: float = 64) -> None:
        super().__init__(num_classes, embedding_dim, margin=margin, scale=scale)


class FastAP(PmlLoss, losses.FastAPLoss):
    """Average precision over a soft histogram of distances.

    Formula: ``mean_i 1 - 1/|P_i| sum_b h+_b H+_b / H_b``, h+ the soft histogram of the squared distances to
    the positives over num_bins, H+ and H the running sums over the positives and over all.

    Reference implementation: the library's ``FastAPLoss``, unchanged.
    """

    name = "fast_ap"
    paper = "Cakir et al., CVPR 2019"
    when = "When average precision is the figure that matters; needs large batches."
    positive = Loss.positive | {"num_bins"}
    takes_references = False

    def __init__(self, num_bins: int = 10) -> None:
        super().__init__(num_bins=num_bins)


class IntraPairVariance(PmlLoss, losses.IntraPairVarianceLoss):
    """Positive pairs that are less similar than the mean are pulled, negative ones that are more are pushed.

    Formula: ``mean over p with l > 0 of [(1 - pos_eps) mean(s_p) - s_p]_+^2 + mean over n with l > 0 of
    [s_n - (1 + neg_eps) mean(s_n)]_+^2``, s the cosines of all positive and of all negative pairs.

    Reference implementation: the library's ``IntraPairVarianceLoss``, unchanged.
    """

    name = "intra_pair_variance"
    paper = "Yu and Tao, ICCV 2019"
    when = "Added to another loss to even out the pairs of a batch. Never alone."

    def __init__(self, pos_eps: float = 0.01, neg_eps: float = 0.01) -> None:
        super().__init__(pos_eps=pos_eps, neg_eps=neg_eps)


class Margin(PmlLoss, losses.MarginLoss):
    """Positive pairs nearer and negative pairs further than one boundary, each by a margin.

    Formula: ``sum over triplets of [d(a, p) - beta + margin]_+ + [beta - d(a, n) + margin]_+`` over the
    number of terms above 0, d the L2 distance of unit vectors; plus nu * beta when beta is learned.

    Reference implementation: the library's ``MarginLoss``, unchanged; one beta for all classes.
    """

    name = "margin"
    paper = "Wu et al., ICCV 2017, arXiv 1706.07567"
    when = "Pairs with one boundary for all; add the distance_weighted miner."

    def __init__(
        self,
        margin: float = 0.2,
        nu: float = 0,
        beta: float = 1.2,
        triplets_per_anchor: int | Literal["all"] = "all",
        learn_beta: bool = False,
    ) -> None:
        super().__init__(
            margin=margin, nu=nu, beta=beta, triplets_per_anchor=triplets_per_anchor, learn_beta=learn_beta
        )


class NCA(PmlLoss, losses.NCALoss):
    """The probability that a random neighbour of an item is of its class.

    Formula: ``mean_i -log sum_p exp(-softmax_scale d(i, p)^2) / sum_{j != i} exp(-softmax_scale d(i, j)^2)``.

    Reference implementation: the library's ``NCALoss``, unchanged.
    """

    name = "nca"
    paper = "Goldberger et al., NeurIPS 2004"
    when = "Few items of each class and no wish for margins."

    def __init__(self, softmax_scale: float = 1) -> None:
        super().__init__(softmax_scale=softmax_scale)


class PNP(PmlLoss, losses.PNPLoss):
    """The soft number of negatives ranked before each positive.

    Formula: ``mean_i 1/|P_i| sum_{p in P_i} f(R_ip)``, ``R_ip = sum_n sigmoid((s_in - s_ip) / anneal)``, the
    negatives ranked before p; f the identity for variant O.

    Reference implementation: the library's ``PNPLoss``, unchanged.
    """

    name = "pnp"
    paper = "Li et al., AAAI 2022, arXiv 2102.04640"
    when = "When the ranking above the positives is the figure that matters; cubic in the batch."
    positive = Loss.positive | {"anneal"}
    takes_references = False
    takes_indices = False

    def __init__(self, b: float = 2, alpha: float = 1, anneal: float = 0.01, variant: Variant = "O") -> None:
        super().__init__(b=b, alpha=alpha, anneal=anneal, variant=variant)


class SubCenterArcFace(PmlClassVectorLoss, _FiniteSlopeAtTarget, losses.SubCenterArcFaceLoss):
    """ArcFace with several centres of each class.

    Formula: ArcFace, whose cosine to a class is the largest one to its sub_centers.

    Reference implementation: the library's ``SubCenterArcFaceLoss``; the gradient of an item on its
    sub-centre is no number there, and 0 here.
    """

    name = "sub_center_arcface"
    paper = "Deng et al., ECCV 2020"
    when = "As arcface, with noisy labels or classes of several looks."
    positive = Loss.positive | {"sub_centers"}

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        margin: float = 28.6,
        scale: float = 64,
        sub_centers: int = 3,
    ) -> None:
        super().__init__(num_classes, embedding_dim, margin=margin, scale=scale, sub_centers=sub_centers)


class TupletMargin(PmlLoss, losses.TupletMarginLoss):
    """Softmax over an anchor's negatives against each positive, with a margin on the positive's angle.

    Formula: ``mean over positive pairs of log(1 + sum_n exp(scale (cos theta_an - cos(theta_ap -
    margin))))``, margin in degrees.

    Reference implementation: the library's ``TupletMarginLoss``; the gradient of two equal items is no number
    there, and 0 here.
    """

    name = "tuplet_margin"
    paper = "Yu and Tao, ICCV 2019"
    when = "Hard negatives of an anchor together, with an angular margin."

    def __init__(self, margin: float = 5.73, scale: float = 64) -> None:
        super().__init__(margin=margin, scale=scale)

    def _compute_loss(self, pos_pairs: Any, neg_pairs: Any, indices_tuple: Indices) -> LossTerms:
        if torch.is_tensor(pos_pairs):  # an empty list when there are none
            pos_pairs = _clamp_cosines(pos_pairs)
        return super()._compute_loss(pos_pairs, neg_pairs, indices_tuple)


def _clamp_cosines(cosines: Tensor) -> Tensor:
    """Cosines whose angle has a finite slope: not 1, -1 or rounded beyond."""
    most = 1 - 8 * torch.finfo(cosines.dtype).eps
    return cosines.clamp(-most, most)
