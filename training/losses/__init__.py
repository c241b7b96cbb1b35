"""Metric losses from class labels: drop-in pytorch-metric-learning losses, one small file each."""

from __future__ import annotations

from api_schemas.yaml_config import NamedPart
from common.errors import ConfigError
from training.losses.base import Loss as Loss
from training.losses.class_vector_base import start_from_class_means as start_from_class_means
from training.losses.parts.training_classes import TrainingClasses as TrainingClasses
from training.losses.weighted_sum import Lesson as Lesson
from training.losses.weighted_sum import Weight as Weight
from training.losses.weighted_sum import WeightedSum as WeightedSum
from training.registry import build_from_spec, format_entries

# isort: off
# The catalogue, in the order in which it is listed: to add a loss, add its file and a line.
from training.losses.triplet import Triplet as Triplet
from training.losses.circle import Circle as Circle
from training.losses.circle import CircleSoftmax as CircleSoftmax
from training.losses.contrastive import Contrastive as Contrastive
from training.losses.multi_similarity import MultiSimilarity as MultiSimilarity
from training.losses.binomial_deviance import BinomialDeviance as BinomialDeviance
from training.losses.lifted_structure import LiftedStructure as LiftedStructure
from training.losses.proxy_nca import ProxyNCA as ProxyNCA
from training.losses.proxy_nca import ProxyNCAPlusPlus as ProxyNCAPlusPlus
from training.losses.proxy_anchor import ProxyAnchor as ProxyAnchor
from training.losses.soft_triple import SoftTriple as SoftTriple
from training.losses.threshold_consistent_margin import ThresholdConsistentMargin as ThresholdConsistentMargin
from training.losses.opis_variance import OPISVariance as OPISVariance
from training.losses.unpg import UNPG as UNPG
from training.losses.mean_field import MeanFieldContrastive as MeanFieldContrastive
from training.losses.mean_field import MeanFieldMultiSimilarity as MeanFieldMultiSimilarity
from training.losses.proto_triplet import ProtoTriplet as ProtoTriplet
from training.losses.icnn import ICNN as ICNN
from training.losses.sface import SFace as SFace
from training.losses.normalized_softmax import NormalizedSoftmax as NormalizedSoftmax
from training.losses.partial_fc import PartialFC as PartialFC
from training.losses.d_simplex import DSimplex as DSimplex
from training.losses.harmonic import Harmonic as Harmonic
from training.losses.z_loss import ZLoss as ZLoss
from training.losses.center import Center as Center
from training.losses.sup_con import SupCon as SupCon
from training.losses.nt_xent import NTXent as NTXent
from training.losses.nt_xent_am import NTXentAM as NTXentAM
from training.losses.ge2e import GE2E as GE2E
from training.losses.angular_prototypical import AngularPrototypical as AngularPrototypical
from training.losses.sbcl import SBCL as SBCL
from training.losses.hierarchical_contrastive import HierarchicalContrastive as HierarchicalContrastive
from training.losses.nd import ND as ND
from training.losses.ckd import CKD as CKD
from training.losses.margin_mse import MarginMSE as MarginMSE
from training.losses.prototype_relation import PrototypeRelation as PrototypeRelation
from training.losses.higher_order_compatibility import HigherOrderCompatibility as HigherOrderCompatibility
from training.losses.backward_compatible import BackwardCompatible as BackwardCompatible
from training.losses.siglip import SigLIP as SigLIP
from training.losses.ccl import CCL as CCL
from training.losses.decoupled_softmax import DecoupledSoftmax as DecoupledSoftmax
from training.losses.soft_top_k import SoftTopK as SoftTopK
from training.losses.arm import ARM as ARM
from training.losses.clp import CLP as CLP
from training.losses.uncertainty import Uncertainty as Uncertainty
from training.losses.isogclr import ISogCLR as ISogCLR
from training.losses.groco import GroCo as GroCo
from training.losses.interclr import InterCLR as InterCLR
from training.losses.isr import ISR as ISR
from training.losses.pamc import PAMC as PAMC
from training.losses.amcl import AMCL as AMCL
from training.losses.neural_collapse import NeuralCollapse as NeuralCollapse
from training.losses.lmpt import LMPT as LMPT
from training.losses.rank_mixup import RankMixup as RankMixup
from training.losses.pml_losses import Angular as Angular
from training.losses.pml_losses import ArcFace as ArcFace
from training.losses.pml_losses import CosFace as CosFace
from training.losses.pml_losses import FastAP as FastAP
from training.losses.pml_losses import IntraPairVariance as IntraPairVariance
from training.losses.pml_losses import Margin as Margin
from training.losses.pml_losses import NCA as NCA
from training.losses.pml_losses import PNP as PNP
from training.losses.pml_losses import SubCenterArcFace as SubCenterArcFace
from training.losses.pml_losses import TupletMargin as TupletMargin
# isort: on

LOSSES: dict[str, type[Loss]] = {
    entry.name: entry
    for entry in list(globals().values())
    if isinstance(entry, type) and issubclass(entry, Loss) and entry is not Loss
}
"""Name in the configuration to class, of the imports above; each runs as ``loss(embeddings, labels)``."""


def build_loss(spec: NamedPart, *, classes: TrainingClasses, embedding_dim: int) -> Loss:
    """The loss of that name with those parameters.

    Raises:
        ConfigError: an unknown name or parameter (names the nearest), or a value that the loss cannot take.
    """
    for key, value in spec.parameters.items():
        must_be_positive = spec.name in LOSSES and key in LOSSES[spec.name].positive
        if must_be_positive and isinstance(value, int | float) and value <= 0:
            raise ConfigError(f"loss ({spec.name}): {key} must be above 0, found {value:g}.")
    return build_from_spec(
        LOSSES,
        spec,
        "loss",
        num_classes=classes.count,
        class_names=classes.names,
        class_sizes=classes.sizes,
        class_paths=classes.paths,
        teacher_directions=classes.teacher_directions,
        embedding_dim=embedding_dim,
    )


def list_losses() -> list[str]:
    """One line per loss: name, paper, parameters with their defaults."""
    return format_entries({name: (loss, loss.paper) for name, loss in LOSSES.items()})
