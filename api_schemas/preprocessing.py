"""``preprocessing.json``: the rule from raw input to network input, the same at training and serving."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from api_schemas.base import SCHEMA_VERSION, Finite, Schema

InputKind = Literal["audio", "image", "table", "text", "vector"]
"""Kind of an encoder's raw inputs, which a request holds."""

Provider = Literal["cpu", "cuda", "tensorrt", "openvino", "coreml"]
"""Where ONNX Runtime computes an encoder."""

ImageMode = Literal["L", "RGB"]
ChannelOrder = Literal["RGB", "BGR"]
ResizeRule = Literal["stretch", "crop", "pad"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
CHANNELS: dict[ImageMode, int] = {"L": 1, "RGB": 3}


class _Extended(Schema):
    """A part that had fewer fields once: later ones are not written at their default.

    So the files of models that were made before, whose bytes are hashed, stay as they were.
    """

    later_fields: ClassVar[frozenset[str]]

    @model_serializer(mode="wrap")
    def _leave_out_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = serialize(self)
        fields = type(self).model_fields
        return {
            name: value
            for name, value in written.items()
            if name not in self.later_fields
            or getattr(self, name) != fields[name].get_default(call_default_factory=True)
        }


class ImageInput(_Extended):
    """Images, to float32 [channels, height, width]: ``(value - mean) / std`` per channel.

    Pixels of 0 to 255 become values of ``value_range``, 0 to 1 unless given; ``order`` is that of the
    channels, and of ``mean`` and ``std``. ``resize`` is ``stretch`` (both sides to their lengths), ``crop``
    (the shorter side fits, the centre is kept; with ``short_side`` the shorter side gets that length first)
    or ``pad`` (the longer side fits, the rest is ``fill``, a grey level 0 to 255). Transparent pixels lie on
    ``fill``; the camera's orientation tag is applied first.
    """

    later_fields = frozenset(("short_side", "interpolation", "order", "value_range"))

    kind: Literal["image"] = "image"
    mode: ImageMode
    height: int = Field(ge=1, le=4096)
    width: int = Field(ge=1, le=4096)
    resize: ResizeRule = "stretch"
    short_side: int | None = Field(default=None, ge=1, le=4096)
    interpolation: Interpolation = "bilinear"
    order: ChannelOrder = "RGB"
    fill: int = Field(default=255, ge=0, le=255)
    value_range: list[Finite] = Field(default_factory=lambda: [0.0, 1.0], min_length=2, max_length=2)
    mean: list[Finite]
    std: list[Annotated[Finite, Field(gt=0)]]

    @model_validator(mode="after")
    def _check_fields(self) -> ImageInput:
        if not len(self.mean) == len(self.std) == CHANNELS[self.mode]:
            raise ValueError(f"mode {self.mode} needs {CHANNELS[self.mode]} values in mean and in std")
        if not self.value_range[0] < self.value_range[1]:
            raise ValueError("value_range must rise, e.g. [0, 255]")
        if self.short_side is not None and self.resize != "crop":
            raise ValueError(f"short_side is for resize 'crop', found '{self.resize}'")
        if self.short_side is not None and self.short_side < max(self.height, self.width):
            raise ValueError(
                f"short_side must be at least {max(self.height, self.width)}, so that the centre can be cut "
                f"out, found {self.short_side}"
            )
        return self


class TableInput(Schema):
    """Rows of numbers, to float32 [columns]: ``(value - mean) / std`` per column, in this order."""

    kind: Literal["table"] = "table"
    columns: list[str] = Field(min_length=1)
    means: list[Finite]
    stds: list[Annotated[Finite, Field(gt=0)]]

    @model_validator(mode="after")
    def _check_lengths(self) -> TableInput:
        if not len(self.columns) == len(self.means) == len(self.stds):
            raise ValueError("columns, means and stds have one entry per column")
        return self


GramLength = Annotated[int, Field(ge=1, le=8)]


def check_ngrams(characters: list[GramLength], words: list[GramLength]) -> None:
    """Raises ValueError when no n-gram is counted."""
    if not characters and not words:
        raise ValueError("characters and words must not both be empty")


UnicodeForm = Literal["NFC"]


class _TextRule(_Extended):
    """``unicode_form``: texts are brought to it first: composed and decomposed spellings are one text.

    Null for models that were trained before it was there, and for those made elsewhere.
    """

    later_fields = frozenset(("unicode_form",))

    unicode_form: UnicodeForm | None = None


class TextInput(_TextRule):
    """Texts, to float32 [length]: ids of hashed n-grams, 1 to ``buckets`` - 1, then zeros.

    ``characters`` and ``words`` are the lengths of n-grams of each. Case and repeated spaces are ignored.
    """

    kind: Literal["text"] = "text"
    buckets: int = Field(ge=16, le=2**23)
    length: int = Field(ge=1, le=4096)
    characters: list[GramLength]
    words: list[GramLength]

    @model_validator(mode="after")
    def _check_ngrams(self) -> TextInput:
        check_ngrams(self.characters, self.words)
        return self


class TokenInput(_TextRule):
    """Texts, to float32 [length]: one more than each token's id, then zeros.

    The tokenizer lies beside this file as ``tokenizer.json`` and is bound to it by its hash.
    ``special_tokens``: with those that the tokenizer adds, such as [CLS]. A text of more than ``length``
    tokens loses its last ones; ``keep_special`` cuts before the special tokens at its end.
    """

    later_fields = frozenset(("unicode_form", "special_tokens", "keep_special"))

    kind: Literal["tokens"] = "tokens"
    length: int = Field(ge=1, le=4096)
    tokenizer_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    special_tokens: bool = True
    keep_special: bool = False


class VectorInput(_Extended):
    """Vectors of another model: float32 [dim], as they are, or with ``unit`` brought to length one."""

    later_fields = frozenset(("unit",))

    kind: Literal["vector"] = "vector"
    dim: int = Field(ge=1)
    unit: bool = False


MelScale = Literal["slaney", "htk"]
LogForm = Literal["none", "natural", "log10", "decibel"]


class AudioInput(Schema):
    """Sounds, to float32 [pieces, 1, mels, piece]: equally long pieces of a mel spectrogram.

    A recording becomes mono of ``sample_rate`` samples a second; with ``loudness`` a quieter one is raised to
    that level (dB below full scale, root mean square), a louder one left. Frames of ``n_fft`` samples, every
    ``hop`` samples, centred, under a Hann window of ``window`` samples, give the power at each frequency;
    ``mels`` triangles from ``fmin`` to ``fmax`` Hz on the mel ``scale`` sum it, each of one height or, with
    ``equal_area``, of one area. ``log`` is taken, of at least ``floor``; then ``(value - mean) / std``.

    Pieces of ``piece`` frames begin every ``step`` frames. The last is kept if at least the fraction
    ``coverage`` of it is sound, zeros follow that. Of a recording of more than ``most_pieces``, as many
    are taken, spread evenly. One of fewer than ``shortest`` seconds is refused.
    """

    kind: Literal["audio"] = "audio"
    sample_rate: int = Field(default=16_000, ge=2_000, le=48_000)
    loudness: Finite | None = Field(default=None, ge=-80, le=0)
    n_fft: int = Field(default=400, ge=16, le=8192)
    window: int = Field(default=400, ge=16, le=8192)
    hop: int = Field(default=160, ge=8, le=8192)
    mels: int = Field(default=40, ge=4, le=512)
    fmin: Finite = Field(default=0.0, ge=0)
    fmax: Finite = Field(default=8_000.0, gt=0)
    scale: MelScale = "slaney"
    equal_area: bool = True
    log: LogForm = "natural"
    floor: Finite = Field(default=1e-10, gt=0)
    mean: Finite = 0.0
    std: Finite = Field(default=1.0, gt=0)
    piece: int = Field(default=160, ge=4, le=4096)
    step: int = Field(default=80, ge=1)
    coverage: Finite = Field(default=0.75, gt=0, le=1)
    most_pieces: int = Field(default=64, ge=1, le=256)
    shortest: Finite = Field(default=0.5, ge=0)

    @model_validator(mode="after")
    def _check_fields(self) -> AudioInput:
        if self.window > self.n_fft:
            raise ValueError(f"window must be at most n_fft ({self.n_fft} samples), found {self.window}")
        if self.step > self.piece:
            raise ValueError(f"step must be at most piece ({self.piece} frames), found {self.step}")
        if not self.fmin < self.fmax <= self.sample_rate / 2:
            raise ValueError(
                f"fmin and fmax must rise, to at most half of sample_rate ({self.sample_rate / 2:g} Hz), "
                f"found {self.fmin:g} and {self.fmax:g}"
            )
        return self


AnyInput = Annotated[
    AudioInput | ImageInput | TableInput | TextInput | TokenInput | VectorInput, Field(discriminator="kind")
]


Layout = Literal["NCHW", "NHWC", "NTF", "NFT", "NCTF"]
Pooling = Literal["mean", "cls", "max"]


class NetworkInterface(Schema):
    """How a network that was made elsewhere is fed and read.

    ``input`` takes the images, rows or token ids; of a text network ``mask`` takes 1 for a token and 0 for
    padding, ``types`` zeros. ``layout`` is that of images (NCHW, NHWC) or of spectrograms (T is time, F
    frequency; NCHW is one channel of frequency x time). ``pooling`` makes one vector of an ``output`` that
    has one for each token or position: their mean, the first (``cls``) or the maximum. With ``batch`` 1 the
    network takes one input at a time.
    """

    input: str = Field(min_length=1)
    mask: str | None = None
    types: str | None = None
    output: str = Field(min_length=1)
    layout: Layout = "NCHW"
    pooling: Pooling | None = None
    batch: Literal[1] | None = None


class PreprocessingDocument(_Extended):
    """The file beside ``encoder.onnx``; its bytes are part of the model's hash.

    ``network`` is left out where the encoder was exported here: one float input, one output of vectors.
    ``query_output``: a second output of it, the vectors of queries, where these have a tower of their own.
    """

    later_fields = frozenset(("network", "query_output"))

    schema_version: Literal[1] = SCHEMA_VERSION
    input: AnyInput
    network: NetworkInterface | None = None
    query_output: str | None = None
