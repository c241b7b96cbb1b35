"""The training configuration: one model checks the file, feeds ``--set`` and is published as JSON schema.

Networks, losses, miners, mixups and memories are chosen by name and carry free parameters; the trainer
checks those against the signature of what the name stands for before anything else happens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from api_schemas.base import Finite, Schema
from api_schemas.operating_point import Target, TargetKind
from api_schemas.preprocessing import GramLength, TextInput, check_ngrams
from api_schemas.yaml_config import mapping_text, read_mapping, validated
from common.atomic_files import write_atomically

Parameter = bool | int | Finite | str | None | list[Any] | dict[str, Any]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
DataKind = Literal["images", "table", "text", "embeddings", "builtin"]
Monitor = Literal["map_at_r", "recall_at_1", "eer", "opis_debiased"]


class Part(Schema):
    """A section of the configuration: unknown keys and values of the wrong type are errors."""

    model_config = ConfigDict(strict=True, validate_default=True)


class NamedPart(Part):
    """A registered thing by name; every other key is one of its own parameters."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Parameter] = Field(init=False)

    name: str = Field(min_length=1)

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The free parameters, as given."""
        return dict(self.__pydantic_extra__)


class RampConfig(Part):
    """A weight that moves in a straight line from ``start`` to ``end`` between two shares of the run."""

    start: Finite = Field(ge=0)
    end: Finite = Field(ge=0)
    begins: Finite = Field(default=0.0, ge=0, lt=1)
    ends: Finite = Field(default=1.0, gt=0, le=1)

    @model_validator(mode="after")
    def _begins_before_it_ends(self) -> Self:
        if self.begins >= self.ends:
            raise ValueError(f"begins must be below ends ({self.ends:g}), found {self.begins:g}")
        return self


class LossConfig(NamedPart):
    """One term of the objective; the terms are summed with their weights.

    ``start_from_class_means`` sets the class vectors of a loss that has them, e.g. proxies, to the mean
    embedding of each class before training; they are random otherwise.
    """

    weight: Finite | RampConfig = 1.0
    start_from_class_means: bool = False

    @field_validator("weight")
    @classmethod
    def _weight_is_not_negative(cls, weight: float | RampConfig) -> float | RampConfig:
        if isinstance(weight, float) and weight < 0:
            raise ValueError(f"a weight must not be negative, found {weight:g}")
        return weight


class SplitConfig(Part):
    """Which items train, which choose the model and the threshold, which only prove it.

    ``by``: class (no class is in two parts), group (no value of ``data.group_column`` is), time (the
    earliest by ``data.time_column`` train, the latest test) or column (``data.split_column`` says it).
    Parts are shares of the classes, groups or items, normalised to their sum. ``folds`` > 0 cuts the
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
    def _fold_is_one_of_the_folds(self) -> Self:
        if self.folds and (self.folds < 3 or self.by != "class"):
            raise ValueError("folds must be at least 3 (train, validation, test), and by must be 'class'")
        if self.fold >= max(1, self.folds):
            raise ValueError(f"fold must be below folds ({self.folds}), found {self.fold}")
        return self


class AugmentationConfig(Part):
    """Random changes of training images; 0 leaves a kind out. Shifts are shares of the image's side.

    ``elastic`` bends the image: the points of a coarse grid move by up to this share, those between follow.
    ``rotations_as_classes`` makes an image turned by 90, 180 and 270 degrees three further classes,
    ``mirrors_as_classes`` the mirror image of each another one.
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
    def _mirror_image_is_the_same_class_or_another(self) -> Self:
        if self.flip and self.mirrors_as_classes:
            raise ValueError("flip keeps the class of a mirrored image, mirrors_as_classes makes it another")
        return self


class TextConfig(Part):
    """How a text becomes numbers: hashed n-grams of characters and of words, without a vocabulary.

    ``length`` n-grams at most are kept of a text, in their order. With ``tokenizer``, a hub name or a local
    folder with ``tokenizer.json``, tokens are kept instead; an ``hf:`` backbone brings its own.
    """

    tokenizer: str | None = None
    buckets: int = Field(default=32_768, ge=16, le=2**23)
    length: int = Field(default=256, ge=1, le=4096)
    characters: list[GramLength] = Field(default_factory=lambda: [3, 4])
    words: list[GramLength] = Field(default_factory=lambda: [1, 2])

    @model_validator(mode="after")
    def _some_ngram_is_counted(self) -> Self:
        check_ngrams(self.characters, self.words)
        return self

    def as_input(self) -> TextInput:
        """The rule for n-grams that is saved with the model."""
        return TextInput(**self.model_dump(exclude={"tokenizer"}))


class DataConfig(Part):
    """What to train on. Relative paths start at the working directory; ``${NAME:-default}`` is replaced.

    ``images`` read a folder per class, a zip of such folders, a list of either, or a CSV/Parquet list.
    ``image_size``: side in pixels; the median of the data, capped at 64, unless given. Images have one
    column to split by, ``folder``: the folder that holds the class's folder, e.g. an alphabet.
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

    @model_validator(mode="before")
    @classmethod
    def _what_is_left_out_follows(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if value.get("builtin") and "kind" not in value:
            value = {**value, "kind": "builtin"}
        if value.get("test_path") and isinstance(split := value.get("split", {}), dict):
            value = {**value, "split": {"test": 0.0, **split}}
        return value

    @model_validator(mode="after")
    def _source_is_given(self) -> Self:
        if self.kind == "builtin" and self.builtin is None:
            raise ValueError("kind 'builtin' needs data.builtin: glyphs or digits")
        if self.kind != "builtin" and not self.path:
            raise ValueError(f"kind '{self.kind}' needs data.path")
        for kind, column in (("group", self.group_column), ("time", self.time_column)):
            if self.split.by == kind and column is None:
                raise ValueError(f"split.by '{kind}' needs data.{kind}_column")
        if self.test_path and self.split.test > 0:
            raise ValueError("with data.test_path the test set is given: data.split.test must be 0 or absent")
        if self.test_path and self.split.folds:
            raise ValueError(
                "with data.test_path the test set is given, but a fold is one too: leave one out"
            )
        return self

    @property
    def paths(self) -> list[Path]:
        """Where the data lies, as a list."""
        return _as_paths(self.path)

    @property
    def test_paths(self) -> list[Path]:
        """Where the separate test set lies; empty when there is none."""
        return _as_paths(self.test_path)


class ModelConfig(Part):
    """The network: a backbone by name (every other key is one of its parameters), then a linear head.

    ``timm:NAME`` and ``hf:NAME`` take a network of those packages, by hub name or from a local folder.
    ``pooling`` over positions: flat (all are kept) for the networks from scratch, average for those, unless
    given. ``views``: an image's embedding joins those of its views, ``embedding_dim / views`` numbers each: 2
    are the image and its mirror image, 4 its quarter turns, 8 both; embedding costs so many times as much.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Parameter] = Field(init=False)

    backbone: str = "conv4"
    embedding_dim: int = Field(default=64, ge=2, le=8192)
    pooling: Literal["average", "max", "gem", "flat"] | None = None
    views: Literal[1, 2, 4, 8] = 1

    @model_validator(mode="after")
    def _views_share_the_embedding(self) -> Self:
        if self.embedding_dim % self.views:
            raise ValueError(
                f"embedding_dim must be a multiple of views ({self.views}), found {self.embedding_dim}"
            )
        if self.view_dim < 2:
            raise ValueError(
                f"embedding_dim must be at least twice views ({self.views}), found {self.embedding_dim}"
            )
        return self

    @property
    def view_dim(self) -> int:
        """Length of one view's embedding, which is what the losses see."""
        return self.embedding_dim // self.views

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The backbone's own parameters, as given."""
        return dict(self.__pydantic_extra__)


class SamplerConfig(Part):
    """Batches of ``batch_size`` items: ``items_per_class`` of each of the classes drawn.

    ``episodic``: exactly so many of each, drawn anew every time; a 20-way episode with 1 shot and 5 queries
    has ``batch_size`` 120 and ``items_per_class`` 6 (the loss's ``shots`` says which are the support).
    With ``neighbours`` each class drawn (``m_per_class``) brings so many others with it that lie nearest in
    the embedding, once the share ``neighbours_from`` of the run is done: batches are harder then.
    """

    name: Literal["m_per_class", "episodic", "class_balanced", "shuffled"] = "m_per_class"
    batch_size: int = Field(default=128, ge=2)
    items_per_class: int = Field(default=4, ge=1)
    neighbours: int = Field(default=0, ge=0)
    neighbours_from: Finite = Field(default=0.5, ge=0, lt=1)

    @property
    def is_grouped(self) -> bool:
        """Whether a batch holds ``items_per_class`` of each of its classes."""
        return self.name in ("m_per_class", "episodic")

    @model_validator(mode="after")
    def _batch_holds_two_classes(self) -> Self:
        if self.is_grouped and self.batch_size < 2 * self.items_per_class:
            raise ValueError("batch_size must be at least twice items_per_class: a batch needs two classes")
        if self.name == "episodic" and self.batch_size % self.items_per_class:
            raise ValueError("batch_size must be a multiple of items_per_class: an episode has whole classes")
        return self

    @model_validator(mode="after")
    def _neighbours_come_with_whole_classes(self) -> Self:
        if self.neighbours and self.name != "m_per_class":
            raise ValueError(f"neighbours are for the sampler 'm_per_class', found '{self.name}'")
        return self


class OptimizerConfig(Part):
    """``loss_lr_factor`` multiplies the learning rate of a loss's own parameters, e.g. proxies.

    ``muon`` moves matrices and kernels by orthogonalised momentum at ``matrix_lr``, the rest as ``adamw``.
    """

    name: Literal["adamw", "sgd", "muon"] = "adamw"
    lr: Finite = Field(default=1e-3, gt=0)
    matrix_lr: Finite = Field(default=0.02, gt=0)
    weight_decay: Finite = Field(default=1e-4, ge=0)
    loss_lr_factor: Finite = Field(default=10.0, gt=0)
    clip_norm: Finite | None = Field(default=1.0, gt=0)
    accumulate: int = Field(default=1, ge=1)
    ema: Finite | None = Field(default=None, gt=0, lt=1)


class ScheduleConfig(Part):
    """When to stop and how the learning rate moves; ``minutes`` is the whole budget of training.

    ``warmup`` is a share of all steps; ``patience`` counts epochs without a better validation figure.
    """

    epochs: int = Field(default=30, ge=1)
    steps_per_epoch: int | None = Field(default=None, ge=1)
    minutes: Finite | None = Field(default=10.0, gt=0)
    shape: Literal["cosine", "one_cycle", "constant"] = "cosine"
    warmup: Finite = Field(default=0.05, ge=0, lt=1)
    patience: int | None = Field(default=8, ge=1)
    keep: int = Field(default=1, ge=1)


class EvaluationConfig(Part):
    """What is measured on validation while training; ``monitor`` chooses the best checkpoint.

    It is one figure, or several with weights whose sum counts, e.g. ``{map_at_r: 1, eer: 2}``; ``eer`` and
    ``opis_debiased`` count as the lower the better.
    """

    monitor: Monitor | dict[Monitor, Finite] = "map_at_r"
    every: int = Field(default=1, ge=1)
    batch_size: int = Field(default=512, ge=1)
    exclude_same: str | None = None

    @field_validator("monitor")
    @classmethod
    def _some_figure_counts(cls, monitor: Monitor | dict[Monitor, float]) -> Monitor | dict[Monitor, float]:
        if isinstance(monitor, dict) and not any(weight > 0 for weight in monitor.values()):
            raise ValueError("monitor needs a figure with a weight above 0")
        if isinstance(monitor, dict) and any(weight < 0 for weight in monitor.values()):
            raise ValueError("weights must not be negative: of eer and opis_debiased less is better already")
        return monitor


class CalibrationConfig(Part):
    """Operating points that ``export`` and ``build`` freeze: target kind to share, e.g. ``{far: 0.01}``."""

    targets: dict[TargetKind, Finite | None] = Field(
        default_factory=lambda: dict[TargetKind, float | None]({"far": 0.01, "fpir": 0.01})
    )
    score: Literal["auto", "cosine", "density"] = "auto"
    confidence: Finite = Field(default=0.95, ge=0.5, lt=1)

    @field_validator("targets")
    @classmethod
    def _shares_are_shares(cls, targets: dict[TargetKind, float | None]) -> dict[TargetKind, float | None]:
        for kind, value in targets.items():
            if kind == "cost":
                raise ValueError("'cost' needs its costs: give it to `limen calibrate`")
            if (value is None) != (kind == "eer"):
                raise ValueError(f"{kind} needs {'no value (null)' if kind == 'eer' else 'a share'}")
            if value is not None and not 0 < value < 1:
                raise ValueError(f"{kind} must be between 0 and 1 (1 % is 0.01), found {value:g}")
        return targets

    def as_targets(self) -> list[Target]:
        """The targets in the form ``calibrate`` takes."""
        return [
            Target(kind=kind, value=value, confidence=self.confidence) for kind, value in self.targets.items()
        ]


class IndexConfig(Part):
    """The engine that proposes candidates. ``auto`` takes flat while exact search is fast enough.

    ``m``, ``ef_construction`` and ``ef_search`` are HNSW's links per node and its list sizes;
    without ``ef_search`` the build takes 128, and more where a set is larger than 200,000 vectors.
    ``nprobe`` is how many cells ``ivf_pq`` looks into; without it the build measures how many it takes.
    """

    kind: Literal["auto", "flat", "hnsw", "hnsw_sq8", "ivf_pq"] = "auto"
    m: int = Field(default=32, ge=4, le=256)
    ef_construction: int = Field(default=200, ge=8)
    ef_search: int | None = Field(default=None, ge=8)
    nprobe: int | None = Field(default=None, ge=1)


class BuildConfig(Part):
    """What ``limen build`` and ``limen export`` can be told with ``--set``."""

    calibration: CalibrationConfig = CalibrationConfig()
    index: IndexConfig = IndexConfig()

    @classmethod
    def from_overrides(cls, overrides: list[str]) -> BuildConfig:
        """The defaults with ``key.path=value`` applied; raises ConfigError naming the key."""
        return validated(BuildConfig, {}, overrides, "--set")

    def with_overrides(self, overrides: list[str]) -> Self:
        """A copy with ``index.*`` and ``calibration.*`` changed by ``key.path=value``; raises ConfigError."""
        now = self.model_dump(mode="json", include={"calibration", "index"})
        changed = validated(BuildConfig, now, overrides, "--set")
        return self.model_copy(update={"calibration": changed.calibration, "index": changed.index})

    def to_yaml(self) -> str:
        """The resolved configuration as YAML text."""
        return mapping_text(self.model_dump(mode="json"))


class Config(BuildConfig):
    """Everything one training run depends on; saved resolved in the run folder and the bundle."""

    name: str = Field(default="limen", pattern=r"^[\w.-]+$")
    seed: Seed = 0
    data: DataConfig
    model: ModelConfig = ModelConfig()
    loss: list[LossConfig] = Field(
        default_factory=lambda: [LossConfig(name="multi_similarity")], min_length=1
    )
    mixup: NamedPart | None = None
    miner: NamedPart | None = None
    memory: NamedPart | None = None
    sampler: SamplerConfig = SamplerConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="before")
    @classmethod
    def _names_alone_are_enough(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        value = dict(value)
        loss = value.get("loss")
        if isinstance(loss, str | dict):
            loss = [loss]
        if isinstance(loss, list):
            value["loss"] = [{"name": part} if isinstance(part, str) else part for part in loss]
        data, model = value.get("data"), value.get("model")
        backbone = str(model.get("backbone", "")) if isinstance(model, dict) else ""
        if backbone.startswith("hf:") and isinstance(data, dict) and data.get("kind") == "text":
            text = data.get("text", {})
            if isinstance(text, dict) and not text.get("tokenizer"):
                value["data"] = {**data, "text": {**text, "tokenizer": backbone.removeprefix("hf:")}}
        for key in ("mixup", "miner", "memory", "sampler"):
            if isinstance(value.get(key), str):
                value[key] = {"name": value[key]}
        return value

    @classmethod
    def load(cls, path: Path, overrides: list[str] | None = None) -> Config:
        """Read a YAML file, apply ``key.path=value`` overrides, check everything.

        Raises:
            InputError: the file cannot be read or is not YAML.
            ConfigError: an unknown key (names the nearest valid one) or a value that is not allowed.
        """
        return validated(Config, read_mapping(path), overrides or [], str(path))

    def save(self, path: Path) -> None:
        """Write the resolved configuration as YAML; ``load`` reads it back equal."""
        write_atomically(path, self.to_yaml().encode())


def _as_paths(value: str | list[str] | None) -> list[Path]:
    if value is None:
        return []
    return [Path(part) for part in ([value] if isinstance(value, str) else value)]
