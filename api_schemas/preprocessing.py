"""``preprocessing.json``: the rule from raw input to network input, the same at training and serving."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from api_schemas.base import SCHEMA_VERSION, Finite, Schema

InputKind = Literal["image", "table", "text", "vector"]
"""Kind of an encoder's raw inputs, which a request holds."""

ImageMode = Literal["L", "RGB"]
ResizeRule = Literal["stretch", "crop", "pad"]
CHANNELS: dict[ImageMode, int] = {"L": 1, "RGB": 3}


class ImageInput(Schema):
    """Images, to float32 [channels, height, width]: ``(pixel / 255 - mean) / std`` per channel.

    ``resize`` is ``stretch`` (both sides to their lengths), ``crop`` (the shorter side fits, the centre
    is kept) or ``pad`` (the longer side fits, the rest is ``fill``, a grey level 0 to 255). Transparent
    pixels lie on ``fill``; the camera's orientation tag is applied first.
    """

    kind: Literal["image"] = "image"
    mode: ImageMode
    height: int = Field(ge=1, le=4096)
    width: int = Field(ge=1, le=4096)
    resize: ResizeRule = "stretch"
    fill: int = Field(default=255, ge=0, le=255)
    mean: list[Finite]
    std: list[Annotated[Finite, Field(gt=0)]]

    @model_validator(mode="after")
    def _check_lengths(self) -> ImageInput:
        if not len(self.mean) == len(self.std) == CHANNELS[self.mode]:
            raise ValueError(f"mode {self.mode} needs {CHANNELS[self.mode]} values in mean and in std")
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


class _TextRule(Schema):
    """``unicode_form``: texts are brought to it first: composed and decomposed spellings are one text.

    Null, which is not written, for models that were trained before it was there: their input stays as it was.
    """

    unicode_form: UnicodeForm | None = None

    @model_serializer(mode="wrap")
    def _leave_out_null(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = serialize(self)
        if self.unicode_form is None:
            del written["unicode_form"]
        return written


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
    """

    kind: Literal["tokens"] = "tokens"
    length: int = Field(ge=1, le=4096)
    tokenizer_sha256: str = Field(pattern="^[0-9a-f]{64}$")


class VectorInput(Schema):
    """Vectors of another model, taken as they are: float32 [dim]."""

    kind: Literal["vector"] = "vector"
    dim: int = Field(ge=1)


AnyInput = Annotated[
    ImageInput | TableInput | TextInput | TokenInput | VectorInput, Field(discriminator="kind")
]


class PreprocessingDocument(Schema):
    """The file beside ``encoder.onnx``; its bytes are part of the model's hash."""

    schema_version: Literal[1] = SCHEMA_VERSION
    input: AnyInput
