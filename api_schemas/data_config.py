"""The ``data`` section of the configuration: files, split, augmentation, texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from api_schemas.base import Finite
from api_schemas.preprocessing import AudioInput, GramLength, LogForm, MelScale, TextInput, check_ngrams
from api_schemas.yaml_config import Part

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Side = Annotated[int, Field(ge=8, le=1024)]
ImageSize = Side | Annotated[list[Side], Field(min_length=2, max_length=2)]
DataKind = Literal["images", "audio", "table", "text", "embeddings", "builtin"]


class SplitConfig(Part):
    """The train, validation and test parts: items that train, that choose model and threshold, that prove it.

    ``by``: class (no class is in two parts), group (no value of ``data.group_column`` is), time (the
    earliest by ``data.time_column`` train, the latest test) or column (``data.split_column`` says it).
    Parts are fractions of the classes, groups or items, normalised to their sum. ``folds`` > 0 cuts the
    classes into folds instead: ``fold`` is the test part, the next one validates.
    """

    by: Literal["class", "group", "time", "column"] = "class"
    train: Finite = Field(default=0.6, gt=0)
    validation: Finite = Field(default=0.2, ge=0)
    test: Finite = Field(default=0.2, ge=0)
    seed: Seed = 0
    folds: int = Field(default=0, ge=0)
    fold: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check_fold(self) -> Self:
        if self.folds and (self.folds < 3 or self.by != "class"):
            raise ValueError("folds must be at least 3 (train, validation, test), and by must be 'class'")
        if self.fold >= max(1, self.folds):
            raise ValueError(f"fold must be below folds ({self.folds}), found {self.fold}")
        return self


class AugmentationConfig(Part):
    """Random changes of training images; 0 leaves a kind out. Shifts are fractions of the image's side.

    ``crop``: up to this fraction of the area is cut away, and what is left, up to 4:3 wider or higher, fills
    the image (0.8 is torchvision's ``RandomResizedCrop`` with its scale from 0.2). ``colour``: brightness,
    contrast and saturation change by up to this fraction, the hue by up to a fourth of it, of a turn.
    ``blur``: of one image in two, Gaussian, by up to this fraction of the shorter side. ``brightness`` is of
    what is normalised, so of ink on paper; ``noise`` too. ``erase``: the side of a square that is blanked.
    ``elastic`` distorts the image: the points of a coarse grid move by up to this fraction of its side, those
    between follow. ``rotations_as_classes`` makes an image rotated by 90, 180 and 270 degrees three further
    classes, ``mirrors_as_classes`` the flip of each another one.
    """

    rotate_degrees: Finite = Field(default=0.0, ge=0, le=180)
    scale: Finite = Field(default=0.0, ge=0, lt=1)
    shear: Finite = Field(default=0.0, ge=0, lt=1)
    shift: Finite = Field(default=0.0, ge=0, lt=1)
    elastic: Finite = Field(default=0.0, ge=0, lt=0.5)
    crop: Finite = Field(default=0.0, ge=0, lt=1)
    flip: bool = False
    colour: Finite = Field(default=0.0, ge=0, lt=1)
    blur: Finite = Field(default=0.0, ge=0, le=0.1)
    noise: Finite = Field(default=0.0, ge=0)
    brightness: Finite = Field(default=0.0, ge=0, lt=1)
    erase: Finite = Field(default=0.0, ge=0, lt=1)
    rotations_as_classes: bool = False
    mirrors_as_classes: bool = False

    @model_validator(mode="after")
    def _check_flip(self) -> Self:
        if self.flip and self.mirrors_as_classes:
            raise ValueError("flip keeps the class of a flipped image, mirrors_as_classes makes it another")
        return self


class TextConfig(Part):
    """Features of texts: hashed n-grams of characters and of words, without a vocabulary, or tokens.

    ``length`` n-grams at most are kept of a text, in their order. With ``tokenizer``, a hub name or a local
    folder with ``tokenizer.json``, tokens are kept instead; an ``hf:`` backbone brings its own.
    ``special_tokens``: with those that the tokenizer adds, such as [CLS]; ``static:`` backbones have none.
    """

    tokenizer: str | None = None
    special_tokens: bool = True
    buckets: int = Field(default=32_768, ge=16, le=2**23)
    length: int = Field(default=256, ge=1, le=4096)
    characters: list[GramLength] = Field(default_factory=lambda: [3, 4])
    words: list[GramLength] = Field(default_factory=lambda: [1, 2])

    @model_validator(mode="after")
    def _check_ngrams(self) -> Self:
        check_ngrams(self.characters, self.words)
        return self

    def as_input(self) -> TextInput:
        """The rule for n-grams that is saved with the model."""
        return TextInput(unicode_form="NFC", **self.model_dump(exclude={"tokenizer", "special_tokens"}))


class AudioConfig(Part):
    """Sounds as pieces of a mel spectrogram; see ``AudioInput``, whose keys these are.

    What is left out: ``window`` and ``n_fft`` are 25 ms, ``hop`` 10 ms, ``fmax`` half of the sample rate,
    ``step`` half a piece, ``shortest`` half a piece in seconds.
    """

    sample_rate: int | None = Field(default=None, ge=2_000, le=48_000)
    loudness: Finite | None = Field(default=None, ge=-80, le=0)
    n_fft: int | None = None
    window: int | None = None
    hop: int | None = None
    mels: int = 40
    fmin: Finite = 0.0
    fmax: Finite | None = None
    scale: MelScale = "slaney"
    equal_area: bool = True
    log: LogForm = "natural"
    floor: Finite = 1e-10
    mean: Finite | None = None
    std: Finite | None = None
    piece: int = Field(default=160, ge=4, le=4096)
    step: int | None = None
    coverage: Finite = 0.75
    most_pieces: int = 64
    shortest: Finite | None = None

    def as_input(self, **said: Any) -> AudioInput:
        """The rule that is saved with the model; ``said`` is what was found out, for keys that are left out.

        Raises ValueError for values that do not go together.
        """
        given = {key: getattr(self, key) for key in AudioConfig.model_fields}
        given = {key: value for key, value in given.items() if value is not None}
        keys = {"sample_rate": 16_000, "piece": self.piece} | said | given
        rate = keys["sample_rate"]
        window = given.get("window", given.get("n_fft", round(0.025 * rate)))
        hop = given.get("hop", round(0.01 * rate))
        usual = {
            "n_fft": window,
            "window": window,
            "hop": hop,
            "fmax": rate / 2,
            "step": max(1, keys["piece"] // 2),
            "shortest": round(keys["piece"] * hop / rate / 2, 3),
        }
        return AudioInput.model_validate(usual | keys)


class DataConfig(Part):
    """The data to train on. Relative paths start at the working directory; ``${NAME:-default}`` is replaced.

    ``images`` and ``audio`` read a folder per class, a zip of such folders, a list of either, or a CSV or
    Parquet list.
    ``preprocessing`` of images, in the language of ``limen wrap``: the name of a preset (``imagenet``), a
    YAML file or keys; fitted to the data unless given. ``image_size``: a side in pixels, or [height, width];
    the median of the data, capped at 64, unless given. ``resize``: stretch, pad (all of the image, the rest
    white) or crop (the centre that has the shape); auto stretches images that have it and pads others.
    Decoded images and recordings, vectors, texts and the numbers of a Parquet table up to ``memory_gb`` GiB
    stay in memory. Larger sets are decoded once into a cache on disk; all caches together hold ``cache_gb``
    GiB at most. Images that have no room there are decoded in every epoch.
    Images have one column to split by, ``folder``: the folder that holds the class's folder, e.g. an
    alphabet.
    ``fold_labels`` takes labels that differ in case, blanks, invisible characters or Unicode form alone as
    one, in the most frequent spelling. Items with one of ``unknown_labels`` (e.g. oos: no identity) are
    left out of all parts.
    ``hierarchy``: groups of classes from the broadest down, for losses that use them: ``path`` takes the
    folders above the class's folder, a list names columns, each with one value in a class.
    ``role_column`` says of each item whether it asks (``query``) or is what the gallery holds (``item``):
    training compares queries with items alone, and so does all that is measured. Of a table of texts with the
    columns ``query`` and ``item``, each row a pair that belongs together, it is ``role``.
    ``file_times`` adds a column ``file_time`` to images: when they were taken, else written.
    ``encoding`` of a CSV or JSON Lines file that is not in UTF-8 or UTF-16, e.g. cp1250.
    """

    kind: DataKind = "images"
    path: str | list[str] | None = None
    test_path: str | list[str] | None = None
    builtin: Literal["glyphs", "digits"] | None = None
    split: SplitConfig = SplitConfig()
    image_size: ImageSize | None = None
    resize: Literal["auto", "stretch", "pad", "crop"] = "auto"
    memory_gb: Finite = Field(default=1.0, ge=0)
    cache_gb: Finite = Field(default=50.0, ge=0)
    preprocessing: str | dict[str, Any] | None = None
    colour: Literal["auto", "grey", "rgb"] = "auto"
    broken: Literal["fail", "skip"] = "fail"
    augmentation: AugmentationConfig = AugmentationConfig()
    text: TextConfig = TextConfig()
    audio: AudioConfig = AudioConfig()
    label_column: str = "label"
    path_column: str = "path"
    text_column: str = "text"
    split_column: str = "split"
    group_column: str | None = None
    time_column: str | None = None
    hierarchy: Literal["path"] | list[str] | None = None
    role_column: str | None = None
    encoding: str | None = None
    fold_labels: bool = False
    unknown_labels: list[str] = Field(default_factory=list)
    file_times: bool = False

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if value.get("builtin") and "kind" not in value:
            value = {**value, "kind": "builtin"}
        if value.get("test_path") and isinstance(split := value.get("split", {}), dict):
            value = {**value, "split": {"test": 0.0, **split}}
        return value

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if self.kind == "builtin" and self.builtin is None:
            raise ValueError("kind 'builtin' needs data.builtin: glyphs or digits")
        if self.kind != "builtin" and not self.path:
            raise ValueError(f"kind '{self.kind}' needs data.path")
        for kind, column in (("group", self.group_column), ("time", self.time_column)):
            if self.split.by == kind and column is None:
                raise ValueError(f"split.by '{kind}' needs data.{kind}_column")
        if self.preprocessing is not None and self.kind != "images":
            raise ValueError(f"preprocessing is for images, kind is '{self.kind}': leave it out")
        if self.preprocessing is not None and self.resize != "auto":
            raise ValueError("preprocessing says how images are resized: leave data.resize out")
        if self.hierarchy == "path" and self.kind not in ("images", "audio"):
            raise ValueError(
                f"hierarchy 'path' is for folders of files, kind is '{self.kind}': name columns instead, "
                "e.g. [family, genus]"
            )
        if self.hierarchy == []:
            raise ValueError("hierarchy needs at least one column, the broadest first")
        if self.test_path and self.split.test > 0:
            raise ValueError("with data.test_path the test set is given: data.split.test must be 0 or absent")
        if self.test_path and self.split.folds:
            raise ValueError(
                "with data.test_path the test set is given, but a fold is one too: leave one out"
            )
        return self

    @property
    def paths(self) -> list[Path]:
        """The paths of the data, as a list."""
        return _list_paths(self.path)

    @property
    def image_shape(self) -> tuple[int, int] | None:
        """Height and width of images; None where the data decides."""
        if self.image_size is None:
            return None
        height, width = self.image_size if isinstance(self.image_size, list) else [self.image_size] * 2
        return height, width

    @property
    def test_paths(self) -> list[Path]:
        """The paths of the separate test set; empty when there is none."""
        return _list_paths(self.test_path)


def _list_paths(value: str | list[str] | None) -> list[Path]:
    if value is None:
        return []
    return [Path(part) for part in ([value] if isinstance(value, str) else value)]
