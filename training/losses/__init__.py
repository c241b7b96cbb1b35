"""Metric losses from class labels: drop-in pytorch-metric-learning losses, one small file each."""

from __future__ import annotations

from training.losses.base import Loss
from training.losses.binomial_deviance import BinomialDeviance
from training.losses.center import Center
from training.losses.circle import Circle
from training.losses.class_vector_base import start_from_class_means
from training.losses.contrastive import Contrastive
from training.losses.d_simplex import DSimplex
from training.losses.harmonic import Harmonic
from training.losses.hierarchical_contrastive import HierarchicalContrastive
from training.losses.icnn import ICNN
from training.losses.lifted_structure import LiftedStructure
from training.losses.mean_field import MeanFieldClassWiseMultiSimilarity, MeanFieldContrastive
from training.losses.multi_similarity import MultiSimilarity
from training.losses.nd import ND
from training.losses.normalized_softmax import NormalizedSoftmax
from training.losses.nt_xent import NTXent
from training.losses.partial_fc import PartialFC
from training.losses.pml_losses import ADOPTED
from training.losses.proto_triplet import ProtoTriplet
from training.losses.proxy_anchor import ProxyAnchor
from training.losses.proxy_nca import ProxyNCA, ProxyNCAPlusPlus
from training.losses.sbcl import SBCL
from training.losses.sface import SFace
from training.losses.soft_triple import SoftTriple
from training.losses.sup_con import SupCon
from training.losses.threshold_consistent_margin import ThresholdConsistentMargin
from training.losses.triplet import Triplet
from training.losses.unpg import UNPG
from training.losses.weighted_sum import CombinedLoss, Weight
from training.losses.z_loss import ZLoss
from training.registry import built, chosen
from training.registry_listing import Spec, catalogue_lines

__all__ = ["LOSSES", "CombinedLoss", "Loss", "Weight", "build", "catalogue", "start_from_class_means"]

LOSSES: dict[str, type[Loss]] = {
    "triplet": Triplet,
    "circle": Circle,
    "contrastive": Contrastive,
    "multi_similarity": MultiSimilarity,
    "binomial_deviance": BinomialDeviance,
    "lifted_structure": LiftedStructure,
    "proxy_nca": ProxyNCA,
    "proxy_nca_plus_plus": ProxyNCAPlusPlus,
    "proxy_anchor": ProxyAnchor,
    "soft_triple": SoftTriple,
    "threshold_consistent_margin": ThresholdConsistentMargin,
    "unpg": UNPG,
    "mean_field_contrastive": MeanFieldContrastive,
    "mean_field_class_wise_multi_similarity": MeanFieldClassWiseMultiSimilarity,
    "proto_triplet": ProtoTriplet,
    "icnn": ICNN,
    "sface": SFace,
    "normalized_softmax": NormalizedSoftmax,
    "partial_fc": PartialFC,
    "d_simplex": DSimplex,
    "harmonic": Harmonic,
    "z_loss": ZLoss,
    "center": Center,
    "sup_con": SupCon,
    "nt_xent": NTXent,
    "sbcl": SBCL,
    "hierarchical_contrastive": HierarchicalContrastive,
    "nd": ND,
    **ADOPTED,
}
"""Name in the configuration to class; each runs as ``loss(embeddings, labels)`` with its defaults."""


def build(spec: Spec, *, num_classes: int, embedding_dim: int) -> Loss:
    """The loss of that name with those parameters; raises ConfigError naming the nearest valid one."""
    make = chosen(LOSSES, spec.name, "loss.name")
    where = f"loss ({spec.name})"
    return built(make, spec.parameters, where, num_classes=num_classes, embedding_dim=embedding_dim)


def catalogue() -> list[str]:
    """One line per loss: name, paper, parameters with their defaults."""
    return catalogue_lines({name: (loss, loss.paper) for name, loss in LOSSES.items()})
