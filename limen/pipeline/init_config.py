"""A commented configuration for data that was looked at, with an encoder where there is one at hand."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from api_schemas.config import Config
from api_schemas.data_config import DataConfig, SplitConfig
from api_schemas.manifest import ENCODER_FILE, PREPROCESSING_FILE
from api_schemas.wrap_config import EncoderConfig, WrapConfig
from api_schemas.yaml_config import format_yaml, parse_yaml, validate_mapping
from common.console import say
from common.errors import InputError, LimenError
from encoder.encoder import Encoder
from encoder.wrapping.presets import PRESETS
from encoder.wrapping.sentence_transformers import is_sentence_transformer
from evaluation.calibration.planning.split_plan import plan_split
from limen.pipeline.embed_data import DATA_KINDS
from limen.pipeline.stage_encoder import HUBS, TABLE_SUFFIX, stage_encoder
from training.data.items import Items, read_roles
from training.data.kinds import open_kind
from training.data.row_store import iterate_rows

LOOKED_AT = 64  # items whose size is looked at
FEW_CLASSES, FEW_FOR_A_PROOF = 5, 20
ONNX = "onnx:"
LEARN_HEAD: Mapping[str, Any] = {
    "loss": {"name": "multi_similarity", "base": 0.2},
    "optimizer": {"lr": 1.0e-5},
    "schedule": {"epochs": 6, "shape": "one_cycle", "patience": None},
}
"""How a whitened head learns: its features of one class are far from parallel, and it is near its end."""


@dataclass(frozen=True)
class Recipe:
    """What is written for one kind of data.

    Attributes:
        kind: of the data, as ``data.kind`` says it.
        preset: of the preprocessing of an encoder that does not say its own; None for vectors.
        describe: what some items look like, in words.
        data: keys of the data to train a network from nothing on.
        remarks: on such data, for whoever begins.
        training: sections of the configuration besides, where a network is trained from nothing.
        shrinkage: of a whitened head on an encoder; the best of 1 to 30 on classes that were left out.
    """

    kind: str
    preset: str | None
    describe: Callable[[Items], str]
    data: Mapping[str, Any] = field(default_factory=dict)
    remarks: Sequence[str] = ()
    training: Mapping[str, Any] = field(default_factory=lambda: {"loss": "multi_similarity"})
    shrinkage: float = 1.0


@dataclass(frozen=True)
class Seen:
    """What was seen of the data: sentences, how many classes, how many items."""

    sentences: list[str]
    classes: int
    items: int


def _describe_photos(items: Items) -> str:
    sizes, n_broken = [], 0
    for file in items.inputs.tolist():
        try:
            sizes.append(file.open().size)
        except InputError:
            n_broken += 1
    if not sizes:
        raise InputError(f"every one of {n_broken} images that were opened is broken.")
    width, height = np.median(np.array(sizes), axis=0).astype(int).tolist()
    broken = f"; {n_broken} of {len(items)} that were opened are broken: see broken below" if n_broken else ""
    return f"about {width} x {height} pixels (width x height){broken}"


def _describe_texts(items: Items) -> str:
    words = [len(str(text).split()) for text in iterate_rows(items.inputs)]
    return f"about {int(np.median(words))} words each"


def _describe_recordings(items: Items) -> str:
    seconds, rates, n_broken = [], [], 0
    for file in items.inputs.tolist():
        try:
            samples, rate = file.read_samples()
        except InputError:
            n_broken += 1
            continue
        seconds.append(len(samples) / rate)
        rates.append(rate)
    if not seconds:
        raise InputError(f"every one of {n_broken} recordings that were opened is broken.")
    broken = f"; {n_broken} of {len(items)} that were opened are broken: see broken below" if n_broken else ""
    low, middle, high = np.quantile(seconds, (0.05, 0.5, 0.95))
    lengths = f"about {middle:.1f} s long ({low:.1f} to {high:.1f})"
    return f"{lengths}, {int(np.median(rates)):,} samples a second{broken}"


def _describe_vectors(items: Items) -> str:
    vectors = np.asarray(items.inputs[np.arange(len(items))])
    return f"{vectors.shape[1]:,} numbers each"


RECIPES = {
    "photos": Recipe("images", "imagenet", _describe_photos),
    "faces": Recipe(
        "images",
        "insightface",
        _describe_photos,
        {"augmentation": {"flip": True}},
        [
            "Networks for faces take faces that are cut out and turned upright by eyes, nose and mouth, as",
            "InsightFace does it (112 x 112): bring photos of people to that first, queries too.",
        ],
    ),
    "text": Recipe("text", "sentence", _describe_texts, shrinkage=10.0),
    "pairs": Recipe(
        "text",
        None,
        _describe_texts,
        {"role_column": "role"},
        [
            "A table of pairs, query and item: what is asked, such as a job's title, and what the gallery",
            "holds, such as a skill. All that pairs connect is one class.",
        ],
        {
            "model": {"towers": 2},
            "loss": "nt_xent",
            "sampler": {"batch_size": 128, "items_per_class": 2},
        },
    ),
    "audio": Recipe("audio", "voice_ge2e", _describe_recordings),
    "vectors": Recipe("embeddings", None, _describe_vectors),
}
"""What ``limen init`` can begin with; a new one is an entry here."""


def init_config(recipe: str, data: Sequence[str], out: Path | None = None, encoder: str | None = None) -> str:
    """Look at data and write a configuration for it; the sentence that says what to do next.

    Args:
        out: the file; named after recipe and what is written unless given.
        encoder: as ``limen wrap`` takes it, or a bundle that it made, on which a head is trained; without
            one, the working directory is looked through.

    Raises:
        InputError: the data or the encoder cannot be used, or there is a file at ``out`` already.
    """
    is_wrapped = encoder is not None and (Path(encoder) / PREPROCESSING_FILE).is_file()
    out = out or Path(f"{recipe}-head.yaml" if is_wrapped else f"{recipe}.yaml")
    if out.exists():
        raise InputError(f"{out} exists: choose another file with --out, or remove it.")
    chosen = RECIPES[recipe]
    paths = data[0] if len(data) == 1 else list(data)
    items = open_kind(DataConfig.model_validate({"kind": chosen.kind, "path": paths}), say).read_all()
    seen = _describe_data(items, chosen)
    if chosen.data.get("role_column"):
        if encoder is not None:
            raise InputError(f"--encoder: {recipe} train both towers from nothing: leave it out.")
        read_roles(items, "role", ", ".join(data))
    else:
        encoder = encoder or _find_encoder(chosen, paths, seen)
    name = out.stem
    if encoder is None or is_wrapped:
        if encoder is not None:
            text = _write_head(name, paths, chosen, seen, encoder)
        elif chosen.kind == "embeddings":
            text = _write_projection(name, paths, seen, int(items.inputs.shape[1]))
        else:
            text = _write_training(name, paths, chosen, seen)
        validate_mapping(Config, parse_yaml(text), [], str(out))
        following = f"limen data check {out}, then limen train {out}"
    else:
        text = _write_wrapping(name, paths, chosen, seen, encoder)
        validate_mapping(WrapConfig, parse_yaml(text), [], str(out))
        following = f"limen wrap {out} --out bundles/{name}"
    out.write_text(text, encoding="utf-8")
    return f"{out} is written: {seen.sentences[0]} Next: {following}"


def _describe_data(items: Items, recipe: Recipe) -> Seen:
    """Sentences about the data: how much there is, what it looks like, what it will carry."""
    _, sizes = np.unique(items.labels, return_counts=True)
    rows = np.unique(np.linspace(0, len(items) - 1, LOOKED_AT).astype(int))
    look = recipe.describe(items.subset(rows))
    said = [
        f"{len(items):,} items of {len(sizes):,} classes, {int(sizes.min())} to {int(sizes.max())} of each "
        f"(median {int(np.median(sizes))}), {look}."
    ]
    if len(sizes) < FEW_CLASSES:
        said.append("Below 5 classes no threshold can be chosen without others to compare: --cohort FILE.")
    elif len(sizes) < FEW_FOR_A_PROOF:
        said.append("Below 20 classes thresholds are estimated, not proven.")
    if (sizes == 1).any():
        said.append(
            f"{int((sizes == 1).sum()):,} classes have one item: they are impostors, never found again."
        )
    return Seen([*said, *recipe.remarks], len(sizes), len(items))


def _find_encoder(recipe: Recipe, paths: str | list[str], seen: Seen) -> str | None:
    """The one network in the working directory that is an encoder of such data."""
    folder = Path()
    candidates = sorted(folder.glob("*.onnx"))
    if recipe.kind == "text":
        folders = (path.parent for path in folder.glob("*/modules.json"))
        candidates = sorted([*folders, *candidates, *folder.glob(f"*{TABLE_SUFFIX}")])
    fitting = []
    for path in candidates:
        try:
            _write_wrapping("any", paths, recipe, seen, str(path))
        except LimenError as error:
            say(f"{path} is left aside: {error}")
        else:
            fitting.append(str(path))
    if len(fitting) > 1:
        say(f"{', '.join(fitting)} are all encoders of such data: choose one with --encoder.")
    return fitting[0] if len(fitting) == 1 else None


def _write_wrapping(name: str, paths: str | list[str], recipe: Recipe, seen: Seen, encoder: str) -> str:
    given = _choose_preprocessing(recipe, encoder)
    keys: dict[str, Any] = {"path": encoder} | ({} if given is None else {"preprocessing": given})
    lines = [*_comment(seen.sentences), *_entry({"name": name}), ""]
    with TemporaryDirectory() as scratch:
        staged = stage_encoder(EncoderConfig.model_validate(keys), Path(scratch))
    lines += _comment([f"{staged.describe()}."])
    if given is not None:
        lines += _comment(
            [
                "preprocessing: what the network was trained with, key by key or by preset",
                f"({_list_presets(given['preset'])}): docs/bring-an-encoder.md",
            ]
        )
    lines += [*_entry({"encoder": keys}), "", *_entry({"data": {"path": paths, "broken": "fail"}})]
    lines += _comment(["broken: skip leaves out what cannot be decoded", ""])
    lines += [
        "# Half of the queries are of nobody in the gallery, a false match costs five misses: what is yours?",
        *_entry({"calibration": {"unknown_share": 0.5, "false_match_cost": 5.0}}),
        "",
        "# A head trained on it gains more, in seconds once it is wrapped:",
        f"#   {_name_command(recipe, paths)} --encoder bundles/{name}",
    ]
    return "\n".join(lines) + "\n"


def _choose_preprocessing(recipe: Recipe, encoder: str) -> dict[str, Any] | None:
    """Where to begin: None for an encoder that says it itself.

    Raises InputError for a text network without exactly one tokenizer beside it.
    """
    path = Path(encoder)
    if recipe.preset is None or encoder.startswith(HUBS) or is_sentence_transformer(path):
        return None
    if recipe.kind == "text":
        tokenizers = sorted(path.parent.glob("*tokenizer.json"))
        if len(tokenizers) != 1:
            raise InputError(
                f"{path.parent} holds {len(tokenizers)} files *tokenizer.json: put the encoder's own, "
                "tokenizer.json, beside it."
            )
        preset = "static" if path.suffix == TABLE_SUFFIX else recipe.preset
        return {"preset": preset, "tokenizer": str(tokenizers[0])}
    return {"preset": recipe.preset}


def _write_training(name: str, paths: str | list[str], recipe: Recipe, seen: Seen) -> str:
    lines = [
        *_comment(seen.sentences),
        "# No encoder is at hand: one is trained from nothing. A pretrained one is nearly always better:",
        f"#   {_name_command(recipe, paths)} --encoder network.onnx",
        "# (or a folder, hf:NAME, timm:NAME)",
        *_entry({"name": name}),
        "",
        *_entry({"data": {"kind": recipe.kind, "path": paths, **recipe.data}}),
        "# classes of train, validation and test are disjoint: 60, 20 and 20 % of them",
        "",
        *_entry(dict(recipe.training)),
        "schedule: {minutes: 10.0} # at most; it stops when validation gets no better",
    ]
    return "\n".join(lines) + "\n"


def _write_head(name: str, paths: str | list[str], recipe: Recipe, seen: Seen, bundle: str) -> str:
    """A head on the encoder of a bundle; raises InputError where that takes other data."""
    if not (Path(bundle) / ENCODER_FILE).is_file():
        raise InputError(f"{bundle} has no {ENCODER_FILE}: give a bundle that `limen wrap` made.")
    encoder = Encoder.open(Path(bundle))
    kind = DATA_KINDS[encoder.preprocessing.kind]
    if kind != recipe.kind:
        raise InputError(f"The encoder of {bundle} takes {kind}, the data are {recipe.kind}.")
    how = (
        "each step hears a piece of each recording."
        if encoder.preprocessing.has_pieces
        else "its vectors are computed once and kept, so that a head learns in seconds."
    )
    lines = [
        *_comment(seen.sentences),
        f"# The encoder of {bundle} stays as it is, a head is trained on it:",
        f"# {how}",
        "# To train a part of a network instead: docs/fine-tuning.md",
        *_entry({"name": name}),
        "",
        *_entry({"data": {"kind": recipe.kind, "path": paths}}),
        *_write_split(seen),
        "",
        *_write_whitened(f"{ONNX}{bundle}", encoder.dim, recipe.shrinkage),
    ]
    return "\n".join(lines) + "\n"


def _write_projection(name: str, paths: str | list[str], seen: Seen, dim: int) -> str:
    source = paths if isinstance(paths, str) else paths[0]
    lines = [
        *_comment(seen.sentences),
        f"# As they are, without training: limen build {source} --out bundles/{name}. This file trains one",
        "# matrix on them, in seconds, for vectors that tell your classes apart better. Ask its service with",
        '# {"input": YOUR VECTOR}, which goes through the matrix; {"vector": ...} is what came out of it.',
        *_entry({"name": name}),
        "",
        *_entry({"data": {"kind": "embeddings", "path": paths}}),
        *_write_split(seen),
        "",
        *_write_whitened("linear", dim, 1.0),
    ]
    return "\n".join(lines) + "\n"


def _write_split(seen: Seen) -> list[str]:
    """A split that thresholds can be proven with, where the usual one leaves them too few classes.

    A head that starts whitened gains little by more classes; nothing for the usual split, or where no split
    is enough.
    """
    usual = SplitConfig()
    plan = plan_split(seen.classes, (usual.train, usual.validation, usual.test), seen.items / seen.classes)
    if plan.suggested is None:
        return []
    split = dict(zip(("train", "validation", "test"), plan.suggested, strict=True))
    return [
        "  # so many classes that thresholds can be proven; the usual 0.6, 0.2, 0.2 leave too few of them",
        *(f"  {line}" for line in _entry({"split": split})),
    ]


def _write_whitened(backbone: str, dim: int, shrinkage: float) -> list[str]:
    model = {
        "backbone": backbone,
        "train": "head",
        "head_start": "whitened",
        "head_shrinkage": shrinkage,
        "embedding_dim": dim,
    }
    return [
        "# whitened: directions in which items of one class differ count less, often most of the gain",
        *_entry({"model": model}),
        "",
        *_entry(dict(LEARN_HEAD)),
    ]


def _list_presets(preset: str) -> str:
    """The presets of the same kind of inputs."""
    return ", ".join(name for name, keys in PRESETS.items() if keys["kind"] == PRESETS[preset]["kind"])


def _name_command(recipe: Recipe, paths: str | list[str]) -> str:
    """What was typed, but for the encoder."""
    name = next(name for name, entry in RECIPES.items() if entry is recipe)
    return shlex.join(["limen", "init", name, *([paths] if isinstance(paths, str) else paths)])


def _comment(sentences: Sequence[str]) -> list[str]:
    return [f"# {sentence}".rstrip() if sentence else "" for sentence in sentences]


def _entry(mapping: dict[str, object]) -> list[str]:
    return format_yaml(mapping).rstrip("\n").splitlines()
