"""Preprocessing by name: what the families of pretrained networks were trained with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # torchvision's evaluation transform: shorter side 256, centre 224
    "imagenet": {"kind": "image", "resize": "crop", "crop_fraction": 0.875, **_IMAGENET},
    # DINOv2 and most networks of timm
    "dinov2": {
        "kind": "image",
        "resize": "crop",
        "crop_fraction": 0.875,
        "interpolation": "bicubic",
        **_IMAGENET,
    },
    # OpenAI's CLIP, OpenCLIP
    "clip": {
        "kind": "image",
        "resize": "crop",
        "crop_fraction": 1.0,
        "interpolation": "bicubic",
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711],
    },
    # SigLIP, ViT of google/vit-*
    "siglip": {"kind": "image", "interpolation": "bicubic", "mean": 0.5, "std": 0.5},
    # ArcFace networks of InsightFace, on faces that are aligned already
    "insightface": {"kind": "image", "range": [0.0, 255.0], "mean": 127.5, "std": 127.5},
    # pixels of 0 to 1, or of 0 to 255, for networks that normalise them themselves
    "unit": {"kind": "image", "mean": 0.0, "std": 1.0},
    "pixels": {"kind": "image", "range": [0.0, 255.0], "mean": 0.0, "std": 1.0},
    # BERT and its kin, as sentence-transformers uses them
    "sentence": {"kind": "text", "network": {"pooling": "mean"}},
    # static token embeddings, such as WordLlama and model2vec
    "static": {"kind": "text", "special_tokens": False},
    # Resemblyzer's speaker encoder (GE2E, Wan et al. 2018, arXiv 1710.10467): power without a logarithm, 1.3
    # pieces a second
    "voice_ge2e": {
        "kind": "audio",
        "sample_rate": 16_000,
        "loudness": -30.0,
        "n_fft": 400,
        "hop": 160,
        "mels": 40,
        "log": "none",
        "piece": 160,
        "step": 77,
    },
    # a mel spectrogram of 80 bands in decibels, for speech networks that take one
    "log_mel": {
        "kind": "audio",
        "sample_rate": 16_000,
        "mels": 80,
        "n_fft": 512,
        "window": 400,
        "log": "decibel",
    },
}

SIZES: Mapping[str | None, int] = {
    "imagenet": 224,
    "dinov2": 224,
    "clip": 224,
    "siglip": 224,
    "insightface": 112,
    "sentence": 256,
    "static": 512,
}
"""Sides in pixels, lengths in tokens, where neither a file nor the network says another."""
