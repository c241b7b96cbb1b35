"""The ``data`` section of the configuration: files, split, augmentation, texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from api_schemas.base import Finite
from api_schemas.preprocessing import GramLength, TextInput, check_ngrams
from api_schemas.yaml_config import Part

Seed = Annotated[int, Field(ge=0, lt=2**32)]
DataKind = Literal["images", "table", "text", "embeddings", "builtin"]


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

    ``elastic`` distorts the image: the points of a coarse grid move by up to this fraction of its side, those
    between follow. ``rotations_as_classes`` makes an image rotated by 90, 180 and 270 degrees three further
    classes, ``mirrors_as_classes`` the flip of each another one.
    """

    rotate_degrees: Finite = Field(default=0.0, ge=0, le=180)
    scale: Finite = Field(default=0.0, ge=0, lt=1)
    shear: Finite = Field(default=0.0, ge=0, lt=1)
    shift: Finite = Field(default=0.0, ge=0, lt=1)
    elastic: Finite = Field(default=0.0, ge=0, lt=0.5)
    flip: bool = False
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
    """

    tokenizer: str | None = None
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
        return TextInput(unicode_form="NFC", **self.model_dump(exclude={"tokenizer"}))


class DataConfig(Part):
    """The data to train on. Relative paths start at the working directory; ``${NAME:-default}`` is replaced.

    ``images`` read a folder per class, a zip of such folders, a list of either, or a CSV/Parquet list.
    ``image_size``: side in pixels; the median of the data, capped at 64, unless given. Images have one
    column to split by, ``folder``: the folder that holds the class's folder, e.g. an alphabet.
    ``fold_labels`` takes labels that differ in case, blanks or Unicode form alone as one, in the most
    frequent spelling. Items with one of ``unknown_labels`` (e.g. oos: no identity) are left out of all parts.
    ``hierarchy``: groups of classes from the broadest down, for losses that use them: ``path`` takes the
    folders above the class's folder, a list names columns, each with one value in a class.
    ``file_times`` adds a column ``file_time`` to images: when they were taken, else written.
    ``encoding`` of a CSV or JSON Lines file that is not in UTF-8 or UTF-16, e.g. cp1250.
    """

    kind: DataKind = "images"
    path: str | list[str] | None = None
    test_path: str | list[str] | None = None
    builtin: Literal["glyphs", "digits"] | None = None
    split: SplitConfig = SplitConfig()
    image_size: int | None = Field(default=None, ge=8, le=1024)
    colour: Literal["auto", "grey", "rgb"] = "auto"
    broken: Literal["fail", "skip"] = "fail"
    augmentation: AugmentationConfig = AugmentationConfig()
    text: TextConfig = TextConfig()
    label_column: str = "label"
    path_column: str = "path"
    text_column: str = "text"
    split_column: str = "split"
    group_column: str | None = None
    time_column: str | None = None
    hierarchy: Literal["path"] | list[str] | None = None
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
        if self.hierarchy == "path" and self.kind != "images":
            raise ValueError(
                f"hierarchy 'path' is for folders of images, kind is '{self.kind}': name columns instead, "
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
    def test_paths(self) -> list[Path]:
        """The paths of the separate test set; empty when there is none."""
        return _list_paths(self.test_path)


def _list_paths(value: str | list[str] | None) -> list[Path]:
    if value is None:
        return []
    return [Path(part) for part in ([value] if isinstance(value, str) else value)]
