"""The training configuration: one model checks the file, feeds ``--set`` and is published as JSON schema.

Networks, losses, miners, mixups and memories are chosen by name and carry free parameters; the trainer
checks those against the signature of what the name stands for before anything else happens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from api_schemas.base import Finite
from api_schemas.build_config import BuildConfig
from api_schemas.data_config import DataConfig, Seed
from api_schemas.yaml_config import NamedPart, OpenPart, Part, read_mapping, validate_mapping
from common.atomic_files import write_atomically

Monitor = Literal["map_at_r", "recall_at_1", "eer", "opis_debiased"]


DEFAULT_BACKBONES: dict[str, str] = {"audio": "tdnn", "text": "ngram", "table": "mlp", "embeddings": "linear"}
"""By the kind of the data, where it is not that of images."""


class RampConfig(Part):
    """A weight that moves in a straight line from ``start`` to ``end`` between two fractions of the run."""

    start: Finite = Field(ge=0)
    end: Finite = Field(ge=0)
    begins: Finite = Field(default=0.0, ge=0, lt=1)
    ends: Finite = Field(default=1.0, gt=0, le=1)

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.begins >= self.ends:
            raise ValueError(f"begins must be below ends ({self.ends:g}), found {self.begins:g}")
        return self


class BadPairsConfig(Part):
    """Bad pairs, found by the losses that items had so far (Lan et al., ICLR 2024): an item whose mean loss
    is ``low`` standard deviations below the mean of all, or ``high`` above, once it has had ``warmup``
    losses, counts the less the farther its loss is from that mean.
    """

    low: Finite = Field(default=2.0, gt=0)
    high: Finite = Field(default=2.0, gt=0)
    warmup: int = Field(default=3, ge=1)


class LossConfig(NamedPart):
    """One term of the objective; the terms are summed with their weights.

    ``start_from_class_means`` sets the class vectors of a loss that has them, e.g. proxies, to the mean
    embedding of each class before training; they are random otherwise. ``lr_factor`` multiplies the learning
    rate of this loss's own parameters. ``bad_pairs``, ``{}`` for its defaults: items that were bad positives
    so far count less; for losses with a loss for each item or positive pair.
    """

    weight: Finite | RampConfig = 1.0
    start_from_class_means: bool = False
    bad_pairs: BadPairsConfig | None = None
    lr_factor: Finite | None = Field(default=None, gt=0)

    @field_validator("weight")
    @classmethod
    def _check_weight(cls, weight: float | RampConfig) -> float | RampConfig:
        if isinstance(weight, float) and weight < 0:
            raise ValueError(f"a weight must not be negative, found {weight:g}")
        return weight


class LoraConfig(Part):
    """Low-rank changes of frozen weights, ``alpha / rank * B A`` (Hu et al. 2022, arXiv 2106.09685).

    ``layers``: names, or ends of names, of the linear layers and convolutions that get one; all unless given.
    """

    rank: int = Field(default=8, ge=1)
    alpha: Finite = Field(default=16.0, gt=0)
    dropout: Finite = Field(default=0.0, ge=0, lt=1)
    layers: list[str] | None = None


class ModelConfig(OpenPart):
    """The network: a backbone by name (every other key is one of its parameters), then a linear head.

    Without one it is the data's: conv4 for images, tdnn for audio, ngram for texts, mlp for tables, linear
    for vectors.
    ``timm:NAME`` and ``hf:NAME`` take a network of those packages, by hub name or from a local folder,
    ``static:FILE`` a table of token embeddings, ``onnx:FOLDER`` the encoder of a bundle,
    ``torch:MODULE:NAME`` a network of your own code. ``weights``: a safetensors file that the backbone starts
    from. ``train``: the ``head`` alone, low-rank changes (``lora``) or the ``last_n`` blocks of the backbone
    with it, or ``all``.
    ``head: none`` leaves the backbone's features as they are. ``head_start``: a head begins at random, with
    the principal ``components`` of the training items' features, which keep their similarities, or with these
    ``whitened``: scaled down where items of one class differ, the less the larger ``head_shrinkage``.
    ``pooling`` over positions: flat (all are kept) for the networks from scratch, average for those trained
    elsewhere, unless given. ``views``: an image's embedding joins those of its views, as many numbers of
    each: 2 are the image and its flip, 4 its rotations by quarter turns, 8 both; embedding takes as many
    times as long.
    ``sizes``: lengths below ``embedding_dim``; the losses see the first so many numbers too, so that these
    are embeddings of their own (``limen export --size``). ``exits``: blocks of the backbone, from 1, after
    which a head of its own makes an embedding too; it learns from the losses and, by
    ``exit_distillation``, from the cosine to the last one (``limen export --exit``).
    ``towers: 2``: queries and items (``data.role_column``) are embedded by networks of one shape with weights
    of their own, which start equal; one network embeds both unless given.
    """

    backbone: str = Field(default="conv4", min_length=1)
    weights: str | None = None
    train: Literal["head", "lora", "last_n", "all"] = "all"
    last_n: int | None = Field(default=None, ge=1)
    lora: LoraConfig | None = None
    embedding_dim: int = Field(default=64, ge=2, le=8192)
    head: Literal["linear", "none"] = "linear"
    head_start: Literal["random", "components", "whitened"] = "random"
    head_shrinkage: Finite = Field(default=1.0, gt=0)
    pooling: Literal["average", "max", "gem", "flat"] | None = None
    views: Literal[1, 2, 4, 8] = 1
    sizes: list[int] = Field(default_factory=list)
    exits: list[int] = Field(default_factory=list)
    towers: Literal[1, 2] = 1
    exit_distillation: Finite = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _check_several(self) -> Self:
        if self.sizes != sorted(set(self.sizes)) or not all(
            2 <= size < self.embedding_dim for size in self.sizes
        ):
            raise ValueError(
                f"sizes must ascend from at least 2 to below embedding_dim ({self.embedding_dim}), found "
                f"{self.sizes}"
            )
        if self.exits != sorted(set(self.exits)) or not all(block >= 1 for block in self.exits):
            raise ValueError(f"exits must be ascending numbers of blocks from 1, found {self.exits}")
        if self.views > 1 and (self.sizes or self.exits):
            raise ValueError("sizes and exits are of embeddings of one view: leave views out")
        if self.exits and self.train != "all":
            raise ValueError(f"exits are trained with the whole network, found train: {self.train}")
        return self

    @model_validator(mode="after")
    def _check_trained(self) -> Self:
        if "trained" in self.parameters:
            raise ValueError(
                "trained was replaced: say train: head (for 0), train: last_n and last_n, the number of "
                "blocks from the output, or train: all (for 1)"
            )
        if (self.train == "last_n") != (self.last_n is not None):
            raise ValueError("last_n, a number of blocks, belongs to train: last_n, and that needs it")
        if self.lora is not None and self.train != "lora":
            raise ValueError(f"lora belongs to train: lora, found train: {self.train}")
        if self.head == "none" and self.head_start != "random":
            raise ValueError(f"head_start {self.head_start} is for a head, found head: none")
        if self.head == "none" and self.train == "head":
            raise ValueError("train: head with head: none leaves nothing to train")
        return self

    @model_validator(mode="after")
    def _check_views(self) -> Self:
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


class TeacherConfig(Part):
    """A teacher that losses follow, e.g. ``nd``: its features of every training item.

    ``vectors``: an embeddings file with the ids of the data, its rows as long as the teacher made them (one
    without ids is in the data's own order). ``bundle``: a bundle or a run's ``encoder`` folder, whose encoder
    is asked; its features have length 1. Features are as long as ``model.embedding_dim``, but for losses that
    compare similarities alone (``ckd``, ``margin_mse``, ``prototype_relation``).
    ``data``: further inputs of the same kind, whose labels are not looked at and may be missing; each batch
    has ``data_per_batch`` of them, from which the losses learn that need no labels (``ckd``,
    ``prototype_relation``). They need ``bundle``, or vectors by their ids.
    """

    vectors: str | None = None
    bundle: str | None = None
    data: str | None = None
    data_per_batch: int = Field(default=128, ge=1)

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if (self.vectors is None) == (self.bundle is None):
            raise ValueError("give either vectors, a file, or bundle, a folder with an encoder")
        return self


class SamplerConfig(Part):
    """Batches of ``batch_size`` items: ``items_per_class`` of each of the classes drawn.

    ``episodic``: exactly so many of each, drawn again every time; a 20-way episode with 1 shot and 5 queries
    has ``batch_size`` 120 and ``items_per_class`` 6 (the loss's ``shots`` says which are the support).
    ``two_views``: items at random, each twice with other augmentation, and each a class of its own: training
    without labels, which only validation and test look at.
    With ``neighbours`` each class drawn (``m_per_class``) brings so many others with it that lie nearest in
    the embedding, once the fraction ``neighbours_from`` of the run is done: batches are harder then.
    """

    name: Literal["m_per_class", "episodic", "class_balanced", "shuffled", "two_views"] = "m_per_class"
    batch_size: int = Field(default=128, ge=2)
    items_per_class: int = Field(default=4, ge=1)
    neighbours: int = Field(default=0, ge=0)
    neighbours_from: Finite = Field(default=0.5, ge=0, lt=1)

    @property
    def is_grouped(self) -> bool:
        """Whether a batch holds ``group_size`` of each of its classes."""
        return self.name in ("m_per_class", "episodic", "two_views")

    @property
    def group_size(self) -> int:
        """Items of each class that a grouped batch holds."""
        return 2 if self.ignores_labels else self.items_per_class

    @property
    def ignores_labels(self) -> bool:
        """Whether every training item is a class of its own."""
        return self.name == "two_views"

    @model_validator(mode="after")
    def _check_batches(self) -> Self:
        if self.ignores_labels and (self.batch_size % 2 or self.batch_size < 4):
            raise ValueError("batch_size must be even and at least 4: two views of two items or more")
        usual = SamplerConfig.model_fields["items_per_class"].default
        if self.ignores_labels and self.items_per_class not in (2, usual):
            raise ValueError("two_views takes two views of each item: leave items_per_class out")
        if self.is_grouped and self.batch_size < 2 * self.group_size:
            raise ValueError("batch_size must be at least twice items_per_class: a batch needs two classes")
        if self.name == "episodic" and self.batch_size % self.items_per_class:
            raise ValueError("batch_size must be a multiple of items_per_class: an episode has whole classes")
        if self.neighbours and self.name != "m_per_class":
            raise ValueError(f"neighbours are for the sampler 'm_per_class', found '{self.name}'")
        return self


class OptimizerConfig(Part):
    """``loss_lr_factor`` multiplies the learning rate of the losses' own parameters, e.g. proxies, where a
    loss has no ``lr_factor`` of its own; without either it is that of the loss's authors, else 10.

    ``muon`` moves matrices and kernels by orthogonalised momentum at ``matrix_lr``, the rest as ``adamw``.
    ``adamp`` leaves out the part of a step that only lengthens weights whose length does not matter.
    ``sam``: the radius of sharpness-aware minimisation (arXiv 2010.01412; 0.05 is usual), whose steps cost
    two: the gradient is taken where the loss is highest at about that distance.
    ``chunk``: the network embeds a batch in chunks of so many items, of which the losses still see the whole
    (GradCache, arXiv 2101.06983): memory of a chunk, one more pass forward. ``accumulate`` cuts the batch
    for the losses too.
    ``layer_decay`` multiplies the learning rate once for each block between a weight and the head (0.65 to
    0.9 for networks that were trained elsewhere).
    """

    name: Literal["adamw", "adamp", "sgd", "muon"] = "adamw"
    lr: Finite = Field(default=1e-3, gt=0)
    matrix_lr: Finite = Field(default=0.02, gt=0)
    weight_decay: Finite = Field(default=1e-4, ge=0)
    layer_decay: Finite | None = Field(default=None, gt=0, le=1)
    loss_lr_factor: Finite | None = Field(default=None, gt=0)
    clip_norm: Finite | None = Field(default=1.0, gt=0)
    accumulate: int = Field(default=1, ge=1)
    chunk: int | None = Field(default=None, ge=2)
    sam: Finite | None = Field(default=None, gt=0)
    ema: Finite | None = Field(default=None, gt=0, lt=1)


class ScheduleConfig(Part):
    """Length of training and course of the learning rate; ``minutes`` is the whole budget of training.

    ``warmup`` is a fraction of all steps; ``patience`` counts epochs without a better validation figure.
    """

    epochs: int = Field(default=30, ge=1)
    steps_per_epoch: int | None = Field(default=None, ge=1)
    minutes: Finite | None = Field(default=10.0, gt=0)
    shape: Literal["cosine", "one_cycle", "constant"] = "cosine"
    warmup: Finite = Field(default=0.05, ge=0, lt=1)
    patience: int | None = Field(default=8, ge=1)
    keep: int = Field(default=1, ge=1)


class MiningRule(Part):
    """Hard negatives: items of other classes near an anchor, without those that may be positives in truth.

    Of the ``top`` nearest items of other classes, after the first ``skip``, those that pass every filter
    given are candidates; ``negatives`` of them are taken, the nearest (``sampling: top``) or at ``random``.

    Filters, s the cosine and p the anchor's positive (NV-Retriever, arXiv 2407.15831): ``margin``
    s(a, n) < s(a, p) - margin; ``percentage`` s(a, n) < s(a, p) - (1 - percentage) |s(a, p)|, which holds its
    direction for negative scores too; ``max_score`` and ``min_score`` bounds of s(a, n). ``class_margin``
    (ours) leaves out what lies as near to the mean of the anchor's class, but for the margin, as that class's
    own members (all but the farthest 5 %) and as its own class's mean: one noisy score does not decide.

    ``clusters``: the candidates are drawn from the anchor's k-means cluster, one of so many, instead.
    """

    negatives: int = Field(default=3, ge=1)
    top: int = Field(default=50, ge=1, le=10_000)
    skip: int = Field(default=0, ge=0)
    sampling: Literal["top", "random"] = "top"
    margin: Finite | None = Field(default=None, ge=-2, le=2)
    percentage: Finite | None = Field(default=None, gt=0, le=1)
    max_score: Finite | None = Field(default=None, ge=-1, le=1)
    min_score: Finite | None = Field(default=None, ge=-1, le=1)
    class_margin: Finite | None = Field(default=None, ge=0, le=2)
    clusters: int | None = Field(default=None, ge=2)

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        if self.skip + self.negatives > self.top:
            raise ValueError(
                f"top must be at least skip + negatives ({self.skip + self.negatives}), found {self.top}"
            )
        return self


class MiningConfig(MiningRule):
    """Batches of mined triplets: each anchor with a positive and its hard negatives, until the batch is full.

    ``file``: triplets that ``limen mine`` wrote, by the ids of the data. ``every``: mined again by the
    network itself before the first epoch and after so many each time.
    """

    file: str | None = None
    every: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if (self.file is None) == (self.every is None):
            raise ValueError("give either file, triplets of `limen mine`, or every, a number of epochs")
        usual = MiningRule(negatives=self.negatives)
        given = [name for name in MiningRule.model_fields if getattr(self, name) != getattr(usual, name)]
        if self.file is not None and given:
            raise ValueError(f"{given[0]} belongs to every: the file is mined already")
        return self


class EvaluationConfig(Part):
    """Validation while training; ``monitor`` chooses the best checkpoint.

    It is one figure, or several with weights whose sum counts, e.g. ``{map_at_r: 1, eer: 2}``; ``eer`` and
    ``opis_debiased`` count as the lower the better.
    """

    monitor: Monitor | dict[Monitor, Finite] = "map_at_r"
    every: int = Field(default=1, ge=1)
    batch_size: int = Field(default=512, ge=1)
    exclude_same: str | None = None

    @field_validator("monitor")
    @classmethod
    def _check_monitor(cls, monitor: Monitor | dict[Monitor, float]) -> Monitor | dict[Monitor, float]:
        if isinstance(monitor, dict) and not any(weight > 0 for weight in monitor.values()):
            raise ValueError("monitor needs a figure with a weight above 0")
        if isinstance(monitor, dict) and any(weight < 0 for weight in monitor.values()):
            raise ValueError("weights must not be negative: of eer and opis_debiased less is better already")
        return monitor


class Config(BuildConfig):
    """Everything one training run depends on; saved resolved in the run folder and the bundle.

    ``start_from``: a run whose network and class vectors this one starts from (``limen train --from RUN``).
    """

    name: str = Field(default="limen", pattern=r"^[\w.-]+$")
    start_from: str | None = None
    seed: Seed = 0
    data: DataConfig
    model: ModelConfig = ModelConfig()
    loss: list[LossConfig] = Field(
        default_factory=lambda: [LossConfig(name="multi_similarity")], min_length=1
    )
    teacher: TeacherConfig | None = None
    mixup: NamedPart | None = None
    miner: NamedPart | None = None
    memory: NamedPart | None = None
    mining: MiningConfig | None = None
    sampler: SamplerConfig = SamplerConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _check_mining(self) -> Self:
        if self.mining and (self.sampler.name != "m_per_class" or self.sampler.neighbours):
            raise ValueError("mining makes the batches itself: leave sampler.name and sampler.neighbours out")
        return self

    @model_validator(mode="before")
    @classmethod
    def _fill_names(cls, value: Any) -> Any:
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
        prefix, _, source = backbone.partition(":")
        if prefix in ("hf", "static") and isinstance(data, dict) and data.get("kind") == "text":
            text = data.get("text", {})
            if isinstance(text, dict):
                given = {"tokenizer": text.get("tokenizer") or source}
                usual = {"special_tokens": False} if prefix == "static" else {}
                value["data"] = {**data, "text": {**usual, **text, **given}}
        if not backbone and isinstance(model or {}, dict) and isinstance(data, dict):
            fitting = DEFAULT_BACKBONES.get(str(data.get("kind", "images")))
            if fitting is not None:
                value["model"] = {**(model or {}), "backbone": fitting}
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
        return validate_mapping(Config, read_mapping(path), overrides or [], str(path))

    def save(self, path: Path, *, private: bool = False) -> None:
        """Write the resolved configuration as YAML; ``load`` reads it back equal."""
        write_atomically(path, self.to_yaml().encode(), private=private)
