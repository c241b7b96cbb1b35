"""Miners: selectors of the pairs or triplets that a loss sees; the library's, parameters checked."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from pytorch_metric_learning import miners

from api_schemas.yaml_config import NamedPart
from training.losses.parts.loss_batch import Indices
from training.registry import build_from_spec, format_entries

Miner = Callable[..., Indices]
"""``miner(embeddings [n, d], labels [n], ref_emb, ref_labels)`` to the indices that a loss takes."""


def _adopt(library_class: Callable[..., Any], **renamed: str) -> Callable[..., Miner]:
    """The library's miner with its own parameters alone, some under clearer names."""

    def make(**parameters: Any) -> Miner:
        miner: Miner = library_class(**{renamed.get(key, key): value for key, value in parameters.items()})
        return miner

    names = {theirs: ours for ours, theirs in renamed.items()}
    make.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            parameter.replace(name=names.get(name, name), kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter in inspect.signature(library_class).parameters.items()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
    )
    return make


_ENTRIES: dict[str, tuple[Callable[..., Miner], str]] = {
    "angular": (_adopt(miners.AngularMiner), "Wang et al., ICCV 2017"),
    "batch_easy_hard": (_adopt(miners.BatchEasyHardMiner), "Xuan et al., WACV 2020"),
    "batch_hard": (_adopt(miners.BatchHardMiner), "Hermans et al., 2017, arXiv 1703.07737"),
    "distance_weighted": (_adopt(miners.DistanceWeightedMiner), "Wu et al., ICCV 2017, arXiv 1706.07567"),
    "hdc": (_adopt(miners.HDCMiner), "Yuan et al., ICCV 2017"),
    "multi_similarity": (_adopt(miners.MultiSimilarityMiner), "Wang et al., CVPR 2019, arXiv 1904.06627"),
    "pair_margin": (_adopt(miners.PairMarginMiner), "pairs beyond two distances"),
    "triplet_margin": (
        _adopt(miners.TripletMarginMiner, kind="type_of_triplets"),
        "Schroff et al., FaceNet, CVPR 2015",
    ),
    "uniform_histogram": (_adopt(miners.UniformHistogramMiner), "pairs even over bins of distance"),
}

MINERS: dict[str, Callable[..., Miner]] = {name: make for name, (make, _) in _ENTRIES.items()}
"""Name in the configuration to what builds the miner."""


def build_miner(spec: NamedPart) -> Miner:
    """The miner of that name with those parameters; raises ConfigError naming the nearest valid one."""
    return build_from_spec(MINERS, spec, "miner")


def list_miners() -> list[str]:
    """One line per miner: name, paper, parameters with their defaults."""
    return format_entries(_ENTRIES)
