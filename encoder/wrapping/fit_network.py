"""From what somebody says and what an ONNX file says: preprocessing, and how the network is fed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from pathlib import Path

import numpy as np

from api_schemas.base import describe_first_problem
from api_schemas.preprocessing import (
    CHANNELS,
    ImageInput,
    ImageMode,
    Layout,
    NetworkInterface,
    TokenInput,
    VectorInput,
)
from api_schemas.wrap_config import (
    AudioPreprocessingConfig,
    ImagePreprocessingConfig,
    NetworkConfig,
    PreprocessingConfig,
    TextPreprocessingConfig,
    VectorPreprocessingConfig,
)
from common.errors import ConfigError, InputError
from encoder.inputs.audio_input import AudioPreprocessing
from encoder.inputs.image_input import ImagePreprocessing
from encoder.inputs.preprocessing import Preprocessing
from encoder.inputs.row_input import VectorPreprocessing
from encoder.inputs.text_input import Tokenizer, TokenPreprocessing
from encoder.network import DTYPES, Network
from encoder.wrapping.network_file import NetworkFile, Node, explain_failure, list_nodes
from encoder.wrapping.presets import SIZES

# axes of a network that takes spectrograms: time, frequency, a channel
SPECTROGRAMS: dict[Layout, str] = {"NTF": "NTF", "NFT": "NFT", "NCTF": "NCTF", "NCHW": "NCFT"}
FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)")
INTEGERS = ("tensor(int64)", "tensor(int32)")
# how exporters of text networks call their inputs
IDS, MASK, TYPES = ("input_ids", "ids"), ("attention_mask", "mask"), ("token_type_ids", "segment_ids")
MOST_NUMBERS = 16_384  # of a vector
DEFAULT_LENGTH = 256


def fit_network(config: PreprocessingConfig, network: NetworkFile) -> tuple[Preprocessing, NetworkInterface]:
    """The preprocessing, with sizes that only the network says, and the network's interface.

    Raises:
        InputError: a network that does not fit the configuration, in one sentence. ConfigError: a
            configuration that leaves open what must be said.
    """
    preprocessing, interface = _fit(config, network)
    _check_answer(network, preprocessing, interface)
    return preprocessing, interface


@singledispatch
def _fit(config: PreprocessingConfig, network: NetworkFile) -> tuple[Preprocessing, NetworkInterface]:
    raise NotImplementedError(type(config).__name__)


@_fit.register
def _fit_image(
    config: ImagePreprocessingConfig, network: NetworkFile
) -> tuple[Preprocessing, NetworkInterface]:
    node = _select_input(network, config.network)
    channels = 1 if config.colour == "grey" else 3
    if len(node.dims) != 4:
        raise InputError(
            f"{network.name} takes {node.describe()}, which are no images: expected 4 dimensions, "
            "[n, channels, height, width] or [n, height, width, channels]."
        )
    layout = _select_layout(network.name, node, channels, config.network.layout)
    height, width = _select_size(config, network.name, node, layout)
    rule = build_image_rule(config, network.name, height, width)
    if node.dtype == "tensor(uint8)":
        if (rule.value_range, rule.mean, rule.std) != ([0.0, 255.0], [0.0] * channels, [1.0] * channels):
            raise InputError(
                f"{network.name} takes whole pixels, {node.describe()}: its preprocessing must leave them as "
                "they are (preset: pixels)."
            )
    else:
        _check_dtype(network.name, node, FLOATS)
    return ImagePreprocessing(rule), _build_interface(network, config.network, node, layout=layout)


def build_image_rule(config: ImagePreprocessingConfig, name: str, height: int, width: int) -> ImageInput:
    """The rule of images of that size; raises ConfigError, naming ``name``, for values that do not fit."""
    short_side = config.short_side
    if short_side is None and config.crop_fraction is not None and config.resize == "crop":
        short_side = round(max(height, width) / config.crop_fraction)
    mode: ImageMode = "L" if config.colour == "grey" else "RGB"
    return _build_rule(
        ImageInput,
        name,
        mode=mode,
        height=height,
        width=width,
        resize=config.resize,
        short_side=short_side,
        interpolation=config.interpolation,
        order="BGR" if config.colour == "BGR" else "RGB",
        fill=config.fill,
        value_range=config.range,
        mean=_spread(config.mean, CHANNELS[mode]),
        std=_spread(config.std, CHANNELS[mode]),
    )


@_fit.register
def _fit_text(
    config: TextPreprocessingConfig, network: NetworkFile
) -> tuple[Preprocessing, NetworkInterface]:
    asked = config.network
    ids = _select_input(network, asked, IDS)
    mask = _find_input(network, asked.mask, MASK)
    types = _find_input(network, asked.types, TYPES)
    for node in (ids, mask, types):
        if node is not None:
            _check_dtype(network.name, node, INTEGERS if node is ids else (*INTEGERS, *FLOATS))
            if len(node.dims) != 2:
                raise InputError(f"{network.name} takes {node.describe()}, tokens are [n, length].")
    fixed = ids.dims[1]
    if fixed is not None and config.length not in (None, fixed):
        raise InputError(
            f"{network.name} takes texts of exactly {fixed} tokens, the preprocessing has length "
            f"{config.length}: leave length out, or export the network with a free second dimension."
        )
    length = fixed or config.length or SIZES.get(config.preset, DEFAULT_LENGTH)
    tokenizer = Tokenizer.open(Path(config.tokenizer), None, config.special_tokens, length)
    rule = TokenInput(
        length=length,
        tokenizer_sha256=tokenizer.sha256,
        special_tokens=config.special_tokens,
        keep_special=True,
    )
    interface = _build_interface(network, asked, ids, mask=mask, types=types)
    return TokenPreprocessing(rule, tokenizer), interface


@_fit.register
def _fit_vector(
    config: VectorPreprocessingConfig, network: NetworkFile
) -> tuple[Preprocessing, NetworkInterface]:
    node = _select_input(network, config.network)
    _check_dtype(network.name, node, FLOATS)
    if len(node.dims) != 2:
        raise InputError(f"{network.name} takes {node.describe()}, vectors are [n, dim].")
    fixed = node.dims[1]
    if fixed is None and config.dim is None:
        raise ConfigError(f"{network.name} takes vectors of any length: say which in the preprocessing, dim.")
    if fixed is not None and config.dim not in (None, fixed):
        raise InputError(f"{network.name} takes vectors of {fixed} numbers, the preprocessing {config.dim}.")
    rule = VectorInput(dim=fixed or config.dim or 0, unit=True)
    return VectorPreprocessing(rule), _build_interface(network, config.network, node)


@_fit.register
def _fit_audio(
    config: AudioPreprocessingConfig, network: NetworkFile
) -> tuple[Preprocessing, NetworkInterface]:
    node = _select_input(network, config.network)
    _check_dtype(network.name, node, FLOATS)
    layout = _select_spectrogram_layout(config, network.name, node)
    try:
        preprocessing = AudioPreprocessing(config.as_input())
    except ValueError as error:
        raise _explain_rule(network.name, error) from None
    return preprocessing, _build_interface(network, config.network, node, layout=layout)


def _select_input(network: NetworkFile, asked: NetworkConfig, usual: Sequence[str] = ()) -> Node:
    """The input that takes what is embedded."""
    found = _find_input(network, asked.input, usual)
    if found is not None:
        return found
    if len(network.inputs) == 1:
        return network.inputs[0]
    if not network.inputs:
        raise InputError(f"{network.name} has no input: it answers the same to everything.")
    raise InputError(
        f"{network.name} has {len(network.inputs)} inputs ({list_nodes(network.inputs)}): say with --input "
        "which one takes what is embedded."
    )


def _find_input(network: NetworkFile, asked: str | None, usual: Sequence[str]) -> Node | None:
    by_name = {node.name: node for node in network.inputs}
    if asked is not None and asked not in by_name:
        raise InputError(f"{network.name} has no input '{asked}'; it has {list_nodes(network.inputs)}.")
    if asked is not None:
        return by_name[asked]
    return next((by_name[name] for name in usual if name in by_name), None)


def _select_output(network: NetworkFile, asked: NetworkConfig) -> Node:
    by_name = {node.name: node for node in network.outputs}
    if asked.output is not None:
        if asked.output not in by_name:
            raise InputError(
                f"{network.name} has no output '{asked.output}'; it has {list_nodes(network.outputs)}."
            )
        return by_name[asked.output]
    if len(network.outputs) != 1:
        raise InputError(
            f"{network.name} has {len(network.outputs)} outputs ({list_nodes(network.outputs)}): say with "
            "--output which one is the embedding."
        )
    return network.outputs[0]


def _build_interface(
    network: NetworkFile,
    asked: NetworkConfig,
    node: Node,
    *,
    mask: Node | None = None,
    types: Node | None = None,
    layout: Layout = "NCHW",
) -> NetworkInterface:
    fed = {one.name for one in (node, mask, types) if one is not None}
    unfed = [one for one in network.inputs if one.name not in fed]
    if unfed:
        raise InputError(
            f"{network.name} needs the input {unfed[0].describe()} as well, which nothing feeds: export it "
            "without that input, or name what it takes under network in the preprocessing."
        )
    batch = node.dims[0]
    if batch not in (None, 1):
        raise InputError(
            f"{network.name} takes exactly {batch} inputs at a time: export it with a free first dimension "
            f"(torch.onnx.export(..., dynamic_axes={{'{node.name}': {{0: 'batch'}}}}))."
        )
    output = _select_output(network, asked)
    if output.dtype not in FLOATS:
        raise InputError(f"{network.name} answers {output.describe()}: an embedding is floats.")
    return NetworkInterface(
        input=node.name,
        mask=None if mask is None else mask.name,
        types=None if types is None else types.name,
        output=output.name,
        layout=layout,
        pooling=asked.pooling,
        batch=1 if batch == 1 else asked.batch,
    )


def _check_dtype(name: str, node: Node, allowed: Sequence[str]) -> None:
    if node.dtype not in allowed or node.dtype not in DTYPES:
        names = " or ".join(dtype.removeprefix("tensor(").rstrip(")") for dtype in allowed)
        raise InputError(f"{name} takes {node.describe()}, expected {names}.")


def _select_layout(name: str, node: Node, channels: int, asked: Layout | None) -> Layout:
    """Where the channels are: as the network's fixed dimensions say, or as was said, or second."""
    first, last = node.dims[1], node.dims[3]
    fits: dict[Layout, bool] = {"NCHW": first == channels, "NHWC": last == channels}
    if not any(fits.values()) and not {first, last} & set(CHANNELS.values()):
        fits = {"NCHW": first is None, "NHWC": last is None}
    possible = [layout for layout, does in fits.items() if does]
    if not possible:
        other = 1 if channels == 3 else 3
        hint = "colour: grey" if other == 1 else "colour: RGB"
        hint = f" (say {hint})" if other in (first, last) else ""
        raise InputError(
            f"{name} takes {node.describe()}, images of the preprocessing have {channels} channels{hint}."
        )
    if asked is not None and asked not in possible:
        raise InputError(f"{name} takes {node.describe()}, which is {possible[0]}, not {asked}.")
    if asked is not None:
        return asked
    return possible[0]


def _select_size(config: ImagePreprocessingConfig, name: str, node: Node, layout: Layout) -> tuple[int, int]:
    """Height and width: those that are fixed in the network, or those of the preprocessing."""
    fixed = node.dims[2:] if layout == "NCHW" else node.dims[1:3]
    given = [config.size, config.size] if isinstance(config.size, int) else config.size
    if given is not None and len(given) != 2:
        raise ConfigError(f"{name}: size is a side in pixels or [height, width], found {given}.")
    usual = SIZES.get(config.preset)
    if given is None and usual is None and None in fixed:
        raise ConfigError(f"{name} takes images of any size: say which in the preprocessing, size: [h, w].")
    sizes = []
    for number, size in enumerate(fixed):
        wanted = None if given is None else given[number]
        if size is not None and wanted not in (None, size):
            shape = " x ".join("any" if side is None else str(side) for side in fixed)
            raise InputError(
                f"{name} takes images of {shape} (height x width), the preprocessing makes "
                f"{' x '.join(map(str, given or ()))}: leave size out, or export the network with free sizes."
            )
        sizes.append(size or wanted or usual or 0)
    return sizes[0], sizes[1]


def _select_spectrogram_layout(config: AudioPreprocessingConfig, name: str, node: Node) -> Layout:
    """Where the mel bands are: as the network's fixed dimensions say, or as was said, or last."""
    sizes = {"T": config.piece, "F": config.mels, "C": 1}
    possible = [
        layout
        for layout, axes in SPECTROGRAMS.items()
        if len(axes) == len(node.dims)
        and all(dim in (None, sizes[axis]) for axis, dim in zip(axes[1:], node.dims[1:], strict=True))
    ]
    fixed = [layout for layout in possible if node.dims[SPECTROGRAMS[layout].index("F")] is not None]
    possible = fixed or possible
    if not possible:
        raise InputError(
            f"{name} takes {node.describe()}, pieces of the preprocessing have {config.mels} mel bands and "
            f"{config.piece} frames: expected [n, frames, mels], [n, mels, frames], or those with a channel "
            "after n; say mels and piece."
        )
    asked = config.network.layout
    if asked is not None and asked not in possible:
        raise InputError(f"{name} takes {node.describe()}, which is {possible[0]}, not {asked}.")
    return asked or possible[0]


def _spread(value: float | list[float], channels: int) -> list[float]:
    return list(value) if isinstance(value, list) else [value] * channels


def _build_rule(schema: type[ImageInput], name: str, **fields: object) -> ImageInput:
    try:
        return schema.model_validate(fields)
    except ValueError as error:
        raise _explain_rule(name, error) from None


def _explain_rule(name: str, error: ValueError) -> ConfigError:
    where, what = describe_first_problem(error)  # type: ignore[arg-type]
    return ConfigError(f"{name}: the preprocessing's {where}: {what}.")


def _check_answer(network: NetworkFile, preprocessing: Preprocessing, interface: NetworkInterface) -> None:
    """Run one input; raises InputError unless the answer is one vector of a length that is of use."""
    opened = Network(network.session, preprocessing, interface)
    sample = np.ones((1, *preprocessing.shape), dtype=np.float32)
    try:
        answer = opened.run(sample)
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        hint = " Is it the layout (network.layout), the size, or the colour?" if sample.ndim == 4 else ""
        raise InputError(
            f"{network.name} fails on an input of {preprocessing.describe_shape()}: "
            f"{explain_failure(error)}.{hint}"
        ) from None
    if isinstance(preprocessing, TokenPreprocessing) and preprocessing.tokenizer is not None:
        largest = preprocessing.tokenizer.largest_id
        try:
            opened.run(sample + np.float32(largest))
        except Exception:
            raise InputError(
                f"{network.name} does not take token {largest}, the last one of the tokenizer: give the "
                "tokenizer that the network was trained with."
            ) from None
    shape = list(np.shape(answer))
    if len(shape) != 2:
        hint = "" if len(shape) not in (3, 4) else ": say network.pooling, mean, cls or max"
        raise InputError(
            f"{network.name} answers an array of {shape} to one input, expected one vector, [1, d]{hint}."
        )
    if shape[0] != 1:
        raise InputError(f"{network.name} answers {shape[0]} vectors to one input.")
    if not 2 <= shape[1] <= MOST_NUMBERS:
        raise InputError(
            f"{network.name} answers vectors of {shape[1]:,} numbers, 2 to {MOST_NUMBERS:,} are taken: name "
            "another output, or pool it (network.pooling)."
        )
