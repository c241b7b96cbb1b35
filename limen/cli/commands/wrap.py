"""``limen wrap``."""

from __future__ import annotations

from typing import Annotated

import typer

from common.console import say
from common.errors import needs
from decision.targets import select_given_targets
from encoder.thumbnails import LARGEST_SIDE, SMALLEST_SIDE
from limen.cli.options import (
    AggregateOption,
    BundleOut,
    Cohort,
    Cost,
    EncoderInput,
    EncoderOutput,
    ExcludeSame,
    FoldLabels,
    Group,
    PointFiles,
    PreprocessingOption,
    ProvenOnly,
    SetBundleKeys,
    TargetFar,
    TargetFpir,
    Unknown,
    UnknownLabel,
    UnknownShare,
    Vectors,
)


def wrap(
    encoder: Annotated[
        str,
        typer.Argument(
            help="An ONNX file, a token table (.safetensors), a folder of sentence-transformers, hf:NAME or "
            "timm:NAME; or a configuration (.yaml) that names encoder and data."
        ),
    ],
    out: BundleOut,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="A folder or zip of class folders of images, a list of images or texts (.csv, .jsonl, "
            ".parquet), vectors (.npz); repeatable. All of it is the gallery."
        ),
    ] = None,
    preprocessing: PreprocessingOption = None,
    input_: EncoderInput = None,
    output: EncoderOutput = None,
    name: Annotated[
        str | None, typer.Option(help="The bundle's name; that of its folder if not given.")
    ] = None,
    thumbnails: Annotated[
        int | None,
        typer.Option(
            min=SMALLEST_SIDE,
            max=LARGEST_SIDE,
            help="Keep a small picture of each item, at most so many pixels long (96), or the beginning of "
            "its text, for people to look at; nothing is kept without it.",
        ),
    ] = None,
    sample_items: Annotated[
        int | None,
        typer.Option(
            min=2, help="Calibrate and measure on at most so many items, of whole classes drawn at random."
        ),
    ] = None,
    operating_point: PointFiles = None,
    target_far: TargetFar = None,
    target_fpir: TargetFpir = None,
    aggregate: AggregateOption = None,
    cost: Cost = None,
    unknown_share: UnknownShare = None,
    proven_only: ProvenOnly = False,
    cohort: Cohort = None,
    unknown: Unknown = None,
    unknown_label: UnknownLabel = None,
    fold_labels: FoldLabels = False,
    group: Group = None,
    exclude_same: ExcludeSame = None,
    vectors: Vectors = None,
    set_: SetBundleKeys = None,
) -> None:
    """Make a bundle from an encoder that exists and your data: embedded, calibrated, ready to serve."""
    with needs("limen wrap", "serve"):
        from limen.pipeline.make_bundle import describe_bundle
        from limen.pipeline.point_options import PointOptions
        from limen.pipeline.wrap_encoder import build_config, wrap_encoder
    config = build_config(
        encoder,
        data=data,
        preprocessing=preprocessing,
        input_name=input_,
        output_name=output,
        name=name,
        overrides=set_ or [],
    )
    manifest = wrap_encoder(
        config,
        out,
        sample_items=sample_items,
        thumbnails=thumbnails,
        point_files=operating_point or [],
        targets=select_given_targets(target_far, target_fpir),
        options=PointOptions.read(
            cohort=cohort,
            unknown=unknown,
            cost=cost,
            unknown_share=unknown_share,
            aggregate=aggregate,
            proven_only=proven_only,
            group=group,
            unknown_labels=unknown_label,
            fold_labels=fold_labels,
            exclude_same=exclude_same,
            vectors=vectors,
        ),
    )
    say(describe_bundle(manifest, out))
