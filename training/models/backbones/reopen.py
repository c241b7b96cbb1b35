"""The configuration of a trained network without what it was started from, for loading its own weights."""

from __future__ import annotations

from pathlib import Path

from api_schemas.config import ModelConfig
from api_schemas.manifest import ENCODER_FILE
from training.models.backbones.hub import ARCHITECTURE_FILE, HF, TIMM
from training.models.backbones.onnx_network import ONNX
from training.models.backbones.static import SHAPE_FILE, STATIC

STORED = {HF: ARCHITECTURE_FILE, STATIC: SHAPE_FILE, ONNX: ENCODER_FILE}
"""By the prefix of a backbone: the file that ``Backbone.save_shape`` writes."""


def drop_pretrained(model: ModelConfig, folder: Path) -> ModelConfig:
    """The same network without its pretrained weights, built from what is stored where there is something.

    Args:
        folder: where ``Backbone.save_shape`` wrote, so that nothing is fetched.
    """
    changes: dict[str, object] = {"weights": None}
    for prefix, file in STORED.items():
        if model.backbone.startswith(prefix) and (folder / file).is_file():
            changes["backbone"] = f"{prefix}{folder}"
    if model.backbone.startswith((TIMM, HF, STATIC)):
        changes["pretrained"] = False
    return model.model_copy(update=changes)
