"""Make a bundle from an encoder that was made elsewhere and raw data: embed, calibrate, evaluate, write."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from api_schemas.manifest import VECTORS_FILE, Manifest
from api_schemas.operating_point import TargetKind
from api_schemas.report import Report
from api_schemas.wrap_config import WrapConfig
from api_schemas.yaml_config import read_mapping, validate_mapping
from common.console import say
from common.errors import ConfigError, InputError
from encoder.wrapping.check_encoder import CheckedEncoder, check_encoder
from index.bundle import check_replaceable
from index.engines.memory_estimate import estimate_build, measure_free_memory
from index.items.metadata import check_metadata
from limen.pipeline.embed_data import RawData, open_data
from limen.pipeline.evaluation_source import EvaluationSource
from limen.pipeline.make_bundle import build_from_source
from limen.pipeline.point_options import DEFAULT_OPTIONS, PointOptions
from limen.pipeline.stage_encoder import StagedEncoder, stage_encoder

UNUSED = ("split", "augmentation", "test_path", "preprocessing")  # keys of data that are for training


def build_config(
    encoder: str,
    *,
    data: Sequence[str] | None = None,
    preprocessing: str | dict[str, Any] | None = None,
    input_name: str | None = None,
    output_name: str | None = None,
    name: str | None = None,
    overrides: Sequence[str] = (),
) -> WrapConfig:
    """The configuration of an encoder and data, or that of a YAML file with what is said besides.

    Raises:
        ConfigError: an unknown key, a value that is not allowed, or no data. InputError: no such file.
    """
    is_file = Path(encoder).suffix in (".yaml", ".yml")
    mapping: dict[str, Any] = {"encoder": {"path": encoder}}
    if is_file:
        mapping = read_mapping(Path(encoder))
    said = {"preprocessing": preprocessing, "input": input_name, "output": output_name}
    if isinstance(mapping.get("encoder"), dict):
        mapping["encoder"] |= {key: value for key, value in said.items() if value is not None}
    if data:
        paths = list(data) if len(data) > 1 else data[0]
        mapping["data"] = {**(mapping.get("data") or {}), "path": paths}
    if name is not None:
        mapping["name"] = name
    if "data" not in mapping and not any(override.startswith("data.") for override in overrides):
        raise ConfigError("--data: say what to embed: a folder of class folders, a list, or another file.")
    return validate_mapping(WrapConfig, mapping, overrides, encoder if is_file else "limen wrap")


def wrap_encoder(
    config: WrapConfig,
    out: Path,
    *,
    sample_items: int | None = None,
    thumbnails: int | None = None,
    point_files: Sequence[Path] = (),
    targets: Mapping[TargetKind, float] | None = None,
    options: PointOptions = DEFAULT_OPTIONS,
) -> Manifest:
    """Make a bundle whose encoder was made elsewhere; the gallery is all of the data.

    The encoder has not been trained on the data, so that all classes count for the operating points.

    Args:
        sample_items: calibrate and measure on at most so many items, of whole classes drawn at random.
        thumbnails: pixels of the longer side of the thumbnails that are kept; None for none.

    Raises:
        InputError: an encoder or data that cannot be used. ConfigError: what must be said and is not.
    """
    _check_unused(config)
    settings = options.apply(config)
    options = _add_label_rules(options, config)
    out = out.absolute()
    name = config.name or out.name
    check_replaceable(out, name)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        folder = Path(scratch)
        staged = stage_encoder(config.encoder, folder)
        say(f"{staged.describe()}.")
        data = open_data(config, staged)
        checked = _check(staged, data)
        free_disk = shutil.disk_usage(out.parent).free
        size = len(data.items), staged.encoder.dim
        estimate = estimate_build(settings.index, *size, measure_free_memory(), free_disk)
        say(f"Index of {size[0]:,} vectors: {estimate}.")
        vectors_file = folder / VECTORS_FILE
        items = data.embed(vectors_file)
        check_metadata(items.metadata)
        return build_from_source(
            EvaluationSource(items, staged.model_hash, "all"),
            out,
            name,
            settings,
            sample_items=sample_items,
            point_files=point_files,
            targets=targets,
            options=options,
            vectors_file=vectors_file if len(items) == len(data.items) else None,
            encoder=folder,
            make_thumbnails=lambda gallery: data.read_thumbnails(gallery.ids, thumbnails),
            readme=lambda report: _describe(config, staged, checked, report),
        )


def _check_unused(config: WrapConfig) -> None:
    for key in UNUSED:
        if key in config.data.model_fields_set and getattr(config.data, key):
            raise ConfigError(f"data.{key}: nothing is trained here: leave it out.")


def _add_label_rules(options: PointOptions, config: WrapConfig) -> PointOptions:
    """The options with the label rules of the configuration's data."""
    return replace(
        options,
        unknown_labels=[*options.unknown_labels, *config.data.unknown_labels],
        fold_labels=options.fold_labels or config.data.fold_labels,
    )


def _check(staged: StagedEncoder, data: RawData) -> CheckedEncoder:
    """Check the encoder on a sample of the data, and say what was found and how long all of it will take."""
    prepared, items = data.draw_sample()
    if not len(items):
        raise InputError(f"every {len(data.items)} of the items that were tried is broken.")
    checked = check_encoder(staged.encoder, prepared, items.ids, staged.name)
    start = perf_counter()
    staged.encoder.embed(prepared)
    seconds = (perf_counter() - start) / len(items) * len(data.items)
    say(
        f"Checked on {checked.inputs} items: alone and together they get the same vectors "
        f"({checked.describe_difference()}). Embedding all {len(data.items):,} takes about {seconds:.0f} s."
    )
    if staged.interface.batch == 1:
        say(
            f"{staged.name} takes one input at a time: a free first dimension (torch.onnx.export(..., "
            "dynamic_axes=...)) would be quicker."
        )
    if checked.is_collapsed:
        say(
            f"Different items get nearly the same vector (median similarity {checked.similarity:.4f}): check "
            "mean, std, range and colour of the preprocessing."
        )
    return checked


def _describe(
    config: WrapConfig, staged: StagedEncoder, checked: CheckedEncoder, report: Report | None
) -> str:
    """A README of the bundle: the encoder, its preprocessing, and what was measured."""
    rule = staged.encoder.preprocessing.rule.model_dump_json(indent=2)
    measured = ""
    if report is not None:
        recall = report.retrieval.recall_at_1
        measured = (
            f" Recall@1 {'-' if recall is None else f'{recall:.3f}'} over {report.counts.items:,} items of "
            f"{report.counts.classes:,} classes."
        )
    return (
        f"# {config.name or Path(staged.name).stem}\n\n{staged.describe()}, wrapped by `limen wrap`. "
        f"An input gets the same vector alone and among {checked.inputs} others ("
        f"{checked.describe_difference()}).\n\n"
        f"It was not trained here; every class of the data counts.{measured}\n\n"
        f"Inputs are prepared so:\n\n```json\n{rule}\n```\n"
    )
