"""The library's other losses that run on labels alone, under Limen's names and checked parameters.

Left out: those that cannot take every batch that a sampler here gives (SmoothAP wants classes of equal size,
N-pairs depends on the order of the batch, the signal-to-noise ratio of a zero vector is infinite), whose
values depend on numpy's rules for torch scalars (SphereFace, large-margin softmax), or that want more than
labels.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from training.losses.base import BaseMetricLossFunction, Indices, Loss, LossTerms, library_losses
from training.losses.class_vector_base import check_codes

_OURS_TO_THEIRS = {"embedding_dim": "embedding_size"}
_NOT_FOR_A_FILE = {"self", "args", "kwargs"}


@dataclass(frozen=True)
class _Entry:
    library_name: str
    paper: str
    formula: str
    takes_references: bool = True
    repaired: type[BaseMetricLossFunction] | None = None


def _with_a_slope(cosines: Tensor) -> Tensor:
    """Cosines whose angle has a finite slope: not 1, -1 or rounded beyond."""
    most = 1 - 8 * torch.finfo(cosines.dtype).eps
    return cosines.clamp(-most, most)


class _TupletMargin(library_losses.TupletMarginLoss):  # type: ignore[misc]
    """the gradient of two items in one place is no number; here it is 0."""

    def _compute_loss(self, pos_pairs: Any, neg_pairs: Any, indices_tuple: Indices) -> LossTerms:
        if torch.is_tensor(pos_pairs):  # an empty list when there are none
            pos_pairs = _with_a_slope(pos_pairs)
        terms: LossTerms = super()._compute_loss(pos_pairs, neg_pairs, indices_tuple)
        return terms


class _ArcFace(library_losses.ArcFaceLoss):  # type: ignore[misc]
    """the gradient of an item on its class vector is no number; here it is 0."""

    def modify_cosine_of_target_classes(self, cosines: Tensor) -> Tensor:
        changed: Tensor = super().modify_cosine_of_target_classes(_with_a_slope(cosines))
        return changed


class _SubCenterArcFace(library_losses.SubCenterArcFaceLoss, _ArcFace):  # type: ignore[misc]
    """the gradient of an item on its sub-centre is no number; here it is 0."""


_ENTRIES = {
    "angular": _Entry(
        "AngularLoss",
        "Wang et al., ICCV 2017, arXiv 1708.01682",
        "``mean over positive pairs of log(1 + sum_n exp(4 t (a + p) . n - 2 (1 + t) a . p))``, t the "
        "squared tangent of alpha, in degrees",
    ),
    "arcface": _Entry(
        "ArcFaceLoss",
        "Deng et al., CVPR 2019, arXiv 1801.07698",
        "``mean_i -log softmax_c(scale * z_ic)_{y_i}``, z the cosines to the class vectors, the target's "
        "``cos(theta + margin)``, margin in degrees",
        repaired=_ArcFace,
    ),
    "cosface": _Entry(
        "CosFaceLoss",
        "Wang et al., CVPR 2018, arXiv 1801.09414",
        "``mean_i -log softmax_c(scale * z_ic)_{y_i}``, z the cosines to the class vectors, the target's "
        "``cos(theta) - margin``",
    ),
    "fast_ap": _Entry(
        "FastAPLoss",
        "Cakir et al., CVPR 2019",
        "``mean_i 1 - 1/|P_i| sum_b h+_b H+_b / H_b``, h+ the soft histogram of the squared distances to the "
        "positives over num_bins, H+ and H the running sums over the positives and over all",
        takes_references=False,
    ),
    "intra_pair_variance": _Entry(
        "IntraPairVarianceLoss",
        "Yu and Tao, ICCV 2019",
        "``mean over p with l > 0 of [(1 - pos_eps) mean(s_p) - s_p]_+^2 + mean over n with l > 0 of "
        "[s_n - (1 + neg_eps) mean(s_n)]_+^2``, s the cosines of all positive and of all negative pairs",
    ),
    "margin": _Entry(
        "MarginLoss",
        "Wu et al., ICCV 2017, arXiv 1706.07567",
        "``sum over triplets of [d(a, p) - beta + margin]_+ + [beta - d(a, n) + margin]_+`` over the number "
        "of terms above 0, d the L2 distance of unit vectors; plus nu * beta when beta is learned",
    ),
    "nca": _Entry(
        "NCALoss",
        "Goldberger et al., NeurIPS 2004",
        "``mean_i -log sum_p exp(-softmax_scale d(i, p)^2) / sum_{j != i} exp(-softmax_scale d(i, j)^2)``",
    ),
    "pnp": _Entry(
        "PNPLoss",
        "Li et al., AAAI 2022, arXiv 2102.04640",
        "``mean_i 1/|P_i| sum_{p in P_i} f(R_ip)``, ``R_ip = sum_n sigmoid((s_in - s_ip) / anneal)``, the "
        "negatives ranked before p; f the identity for variant O",
        takes_references=False,
    ),
    "sub_center_arcface": _Entry(
        "SubCenterArcFaceLoss",
        "Deng et al., ECCV 2020",
        "ArcFace, whose cosine to a class is the largest one to its sub_centers",
        repaired=_SubCenterArcFace,
    ),
    "tuplet_margin": _Entry(
        "TupletMarginLoss",
        "Yu and Tao, ICCV 2019",
        "``mean over positive pairs of log(1 + sum_n exp(scale (cos theta_an - cos(theta_ap - margin))))``, "
        "margin in degrees",
        repaired=_TupletMargin,
    ),
}


def _adopt(name: str, entry: _Entry) -> type[Loss]:
    """A class whose signature holds the library's own parameters and nothing that a file cannot say."""
    library_class = entry.repaired or getattr(library_losses, entry.library_name)
    settings = _settings(library_class)
    if name == "margin":
        del settings["num_classes"]  # with it the margin is one per class, and labels must be codes
    to_theirs = {ours: theirs for ours, theirs in _OURS_TO_THEIRS.items() if theirs in settings}
    to_ours = {theirs: ours for ours, theirs in to_theirs.items()}

    class Adopted(Loss, library_class):  # type: ignore[misc, valid-type]
        paper: ClassVar[str] = entry.paper
        takes_references: ClassVar[bool] = entry.takes_references and "num_classes" not in settings

        def __init__(self, **parameters: Any) -> None:
            given = {to_theirs.get(key, key): value for key, value in parameters.items()}
            super().__init__(**given)
            self.codes = int(given["num_classes"]) if "num_classes" in given else None

        def compute_loss(
            self,
            embeddings: Tensor,
            labels: Tensor,
            indices_tuple: Indices | None,
            ref_emb: Tensor,
            ref_labels: Tensor,
        ) -> LossTerms:
            if self.codes is not None:
                check_codes(labels, self.codes)
            terms: LossTerms = super().compute_loss(embeddings, labels, indices_tuple, ref_emb, ref_labels)
            # the library's mean of no losses is not a number
            empty = all(
                torch.is_tensor(part["losses"]) and not part["losses"].numel() for part in terms.values()
            )
            return self.zero_losses() if empty else terms

    Adopted.__name__ = Adopted.__qualname__ = entry.library_name.removesuffix("Loss")
    Adopted.__doc__ = _docstring(entry)
    Adopted.__signature__ = inspect.Signature(
        [
            parameter.replace(name=to_ours.get(key, key), kind=inspect.Parameter.KEYWORD_ONLY)
            for key, parameter in settings.items()
        ]
    )
    return Adopted


def _docstring(entry: _Entry) -> str:
    released = entry.repaired.__doc__ if entry.repaired else "the library's, unchanged."
    return "\n\n".join(
        [
            f"The library's ``{entry.library_name}``.",
            f"Formula: {entry.formula}.",
            f"In released code: {released}",
        ]
    )


def _settings(library_class: type[BaseMetricLossFunction]) -> dict[str, inspect.Parameter]:
    """Parameters of the class and of the bases that its ``*args`` go to, none of the reducers' and such."""
    found: dict[str, inspect.Parameter] = {}
    for base in library_class.__mro__:
        parameters = inspect.signature(base.__init__).parameters  # type: ignore[misc]
        for key, parameter in parameters.items():
            if key not in _NOT_FOR_A_FILE:
                found.setdefault(key, parameter)
        if "args" not in parameters:
            break
    return found


ADOPTED: dict[str, type[Loss]] = {name: _adopt(name, entry) for name, entry in _ENTRIES.items()}
