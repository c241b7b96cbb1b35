"""The library's other losses that run on labels alone, under Limen's names and checked parameters."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from training.losses.class_vectors import check_codes
from training.losses.library import BaseMetricLossFunction, Indices, Loss, LossTerms, library_losses

_OURS_TO_THEIRS = {"embedding_dim": "embedding_size"}
_NOT_FOR_A_FILE = {"kwargs", "args"}


@dataclass(frozen=True)
class _Entry:
    library_name: str
    paper: str


_ENTRIES = {
    "angular": _Entry("AngularLoss", "Wang et al., ICCV 2017, arXiv 1708.01682"),
    "arcface": _Entry("ArcFaceLoss", "Deng et al., CVPR 2019, arXiv 1801.07698"),
    "cosface": _Entry("CosFaceLoss", "Wang et al., CVPR 2018, arXiv 1801.09414"),
    "fast_ap": _Entry("FastAPLoss", "Cakir et al., CVPR 2019"),
    "intra_pair_variance": _Entry("IntraPairVarianceLoss", "Yu and Tao, ICCV 2019"),
    "large_margin_softmax": _Entry("LargeMarginSoftmaxLoss", "Liu et al., ICML 2016, arXiv 1612.02295"),
    "margin": _Entry("MarginLoss", "Wu et al., ICCV 2017, arXiv 1706.07567"),
    "n_pairs": _Entry("NPairsLoss", "Sohn, NeurIPS 2016"),
    "nca": _Entry("NCALoss", "Goldberger et al., NeurIPS 2004"),
    "nt_xent": _Entry("NTXentLoss", "Sohn, NeurIPS 2016; Chen et al., ICML 2020, arXiv 2002.05709"),
    "pnp": _Entry("PNPLoss", "Li et al., AAAI 2022, arXiv 2102.04640"),
    "signal_to_noise_ratio": _Entry("SignalToNoiseRatioContrastiveLoss", "Yuan et al., CVPR 2019"),
    "smooth_ap": _Entry("SmoothAPLoss", "Brown et al., ECCV 2020, arXiv 2007.12163"),
    "sphereface": _Entry("SphereFaceLoss", "Liu et al., CVPR 2017, arXiv 1704.08063"),
    "sub_center_arcface": _Entry("SubCenterArcFaceLoss", "Deng et al., ECCV 2020"),
    "tuplet_margin": _Entry("TupletMarginLoss", "Yu and Tao, ICCV 2019"),
}


def _adopt(name: str, entry: _Entry) -> type[Loss]:
    """A class whose signature holds the library's own parameters and nothing that a file cannot say."""
    library_class = getattr(library_losses, entry.library_name)
    settings = _settings(library_class)
    to_theirs = {ours: theirs for ours, theirs in _OURS_TO_THEIRS.items() if theirs in settings}
    to_ours = {theirs: ours for ours, theirs in to_theirs.items()}

    class Adopted(Loss, library_class):  # type: ignore[misc, valid-type]
        paper: ClassVar[str] = entry.paper
        takes_references: ClassVar[bool] = "num_classes" not in settings or name == "margin"

        def __init__(self, **parameters: Any) -> None:
            given = {to_theirs.get(key, key): value for key, value in parameters.items()}
            super().__init__(**given)
            self.codes = None if self.takes_references else int(given["num_classes"])

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
            return terms

    Adopted.__name__ = Adopted.__qualname__ = entry.library_name.removesuffix("Loss")
    Adopted.__doc__ = f"The library's ``{entry.library_name}``: {entry.paper}."
    Adopted.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            parameter.replace(name=to_ours.get(key, key), kind=inspect.Parameter.KEYWORD_ONLY)
            for key, parameter in settings.items()
        ]
    )
    return Adopted


def _settings(library_class: type[BaseMetricLossFunction]) -> dict[str, inspect.Parameter]:
    """Parameters of the class and of the bases that its ``*args`` go to, none of the reducers' and such."""
    found: dict[str, inspect.Parameter] = {}
    for base in library_class.__mro__:
        parameters = inspect.signature(base.__init__).parameters
        for key, parameter in parameters.items():
            if key not in ("self", *_NOT_FOR_A_FILE):
                found.setdefault(key, parameter)
        if "args" not in parameters:
            break
    return found


ADOPTED: dict[str, type[Loss]] = {name: _adopt(name, entry) for name, entry in _ENTRIES.items()}
