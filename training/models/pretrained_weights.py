"""Weights of a safetensors file for a backbone, by name."""

from __future__ import annotations

from pathlib import Path

import safetensors
import safetensors.torch

from common.errors import ConfigError, InputError
from training.models.backbones.backbone import Backbone

MOST_NAMED = 3


def load_backbone_weights(backbone: Backbone, source: str) -> None:
    """Load a file's tensors; those that the backbone has no place for, such as a classifier, are left out.

    Raises:
        InputError: the file is missing or damaged. ConfigError: a tensor that the backbone needs is not there
            or has another shape.
    """
    path = Path(source)
    try:
        weights = backbone.rename_weights(safetensors.torch.load_file(path))
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"model.weights: {path} cannot be read as safetensors: {error}.") from None
    own = backbone.state_dict()
    needed = {name: value for name, value in own.items() if not name.endswith("num_batches_tracked")}
    misfits = [
        name for name, value in needed.items() if getattr(weights.get(name), "shape", 0) != value.shape
    ]
    if misfits:
        named = ", ".join(misfits[:MOST_NAMED]) + (", ..." if misfits[MOST_NAMED:] else "")
        raise ConfigError(
            f"model.weights: {path} does not hold {len(misfits)} of the backbone's {len(own)} tensors in "
            f"their shape ({named}): give weights of this very network, under the names of its own code."
        )
    backbone.load_state_dict({name: weights.get(name, value) for name, value in own.items()})
