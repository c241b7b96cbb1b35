"""What ``limen wrap`` takes: an encoder made elsewhere, how inputs are prepared, the data to embed."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from api_schemas.base import Finite
from api_schemas.build_config import BuildConfig
from api_schemas.data_config import AudioConfig, DataConfig
from api_schemas.preprocessing import Interpolation, Layout, Pooling, ResizeRule
from api_schemas.yaml_config import Part


class NetworkConfig(Part):
    """How the network is fed and read; what is left out is read from the ONNX file where it is plain.

    ``input`` takes images, rows or token ids; of a text network ``mask`` takes 1 for tokens and 0 for
    padding, ``types`` zeros. ``pooling`` makes one vector of an answer of one for each token or position.
    ``batch: 1`` runs inputs one by one.
    """

    input: str | None = None
    mask: str | None = None
    types: str | None = None
    output: str | None = None
    layout: Layout | None = None
    pooling: Pooling | None = None
    batch: Literal[1] | None = None


class ImagePreprocessingConfig(Part):
    """Images: decoded, turned upright, resized, and ``(value - mean) / std`` per channel.

    ``size``: a side in pixels, or [height, width]; that of the network where it is fixed there. ``crop``
    cuts out the centre after the shorter side was resized to ``short_side``, or to the size divided by
    ``crop_fraction``. ``range``: what pixels of 0 to 255 become before mean and std are applied.
    """

    kind: Literal["image"] = "image"
    preset: str | None = None
    size: int | list[int] | None = None
    resize: ResizeRule = "stretch"
    short_side: int | None = None
    crop_fraction: Finite | None = Field(default=None, gt=0, le=1)
    interpolation: Interpolation = "bilinear"
    colour: Literal["RGB", "BGR", "grey"] = "RGB"
    fill: int = Field(default=255, ge=0, le=255)
    range: list[Finite] = Field(default_factory=lambda: [0.0, 1.0], min_length=2, max_length=2)
    mean: Finite | list[Finite]
    std: Finite | list[Finite]
    network: NetworkConfig = NetworkConfig()


class TextPreprocessingConfig(Part):
    """Texts: the ids of a ``tokenizer.json``, at most ``length`` of them.

    ``special_tokens``: with those that the tokenizer adds, such as [CLS].
    """

    kind: Literal["text"] = "text"
    preset: str | None = None
    tokenizer: str
    length: int | None = Field(default=None, ge=1, le=4096)
    special_tokens: bool = True
    network: NetworkConfig = NetworkConfig()


class AudioPreprocessingConfig(AudioConfig):
    """Sounds: mono, one sample rate, pieces of a mel spectrogram; see ``AudioConfig``."""

    kind: Literal["audio"] = "audio"
    preset: str | None = None
    network: NetworkConfig = NetworkConfig()


class VectorPreprocessingConfig(Part):
    """Vectors of another model, ``dim`` numbers each, brought to length one; the network projects them."""

    kind: Literal["vector"] = "vector"
    preset: str | None = None
    dim: int | None = Field(default=None, ge=1)
    network: NetworkConfig = NetworkConfig()


PreprocessingConfig = (
    ImagePreprocessingConfig | TextPreprocessingConfig | AudioPreprocessingConfig | VectorPreprocessingConfig
)


class EncoderConfig(Part):
    """``path``: an ONNX file, a token table (.safetensors), a folder of sentence-transformers, ``hf:NAME`` or
    ``timm:NAME``. ``preprocessing``: a YAML file, the name of a preset, or the keys of such a file here.
    ``input`` and ``output`` name those of a network that has several."""

    path: str = Field(min_length=1)
    preprocessing: str | dict[str, Any] | None = None
    input: str | None = None
    output: str | None = None


class WrapConfig(BuildConfig):
    """The configuration that ``limen wrap`` reads, or makes from its flags; saved in the bundle."""

    name: str | None = Field(default=None, pattern=r"^[\w.-]+$")
    encoder: EncoderConfig
    data: DataConfig
