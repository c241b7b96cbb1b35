"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.choices import LARGEST_THUMBNAIL, MOST_VECTORS, SMALLEST_THUMBNAIL, AggregateChoice

BundleOut = Annotated[Path, typer.Option(help="The bundle's folder.")]
PointFiles = Annotated[
    list[Path] | None,
    typer.Option(help="Operating point to carry, instead of calibrating new ones; repeatable."),
]
TargetFar = Annotated[
    float | None, typer.Option(help="FAR of the 1:1 operating point, instead of the ladder of usual targets.")
]
TargetFpir = Annotated[
    str | None,
    typer.Option(
        help="FPIR of the 1:N operating point, e.g. 0.01; `auto` (the default) makes the ladder of usual "
        "targets and takes the point with the least expected cost."
    ),
]
AggregateOption = Annotated[
    AggregateChoice | None,
    typer.Option(
        help="1:N. How the items of a class make one score: nearest, mean_of_class, evidence, or auto "
        "(the default), which takes the one that misses least."
    ),
]
Cost = Annotated[
    float | None, typer.Option(help="How many missed known queries one false match costs (default 5).")
]
UnknownShare = Annotated[
    float | None, typer.Option(help="Expected share of queries that are not in the gallery (default 0.5).")
]
ProvenOnly = Annotated[
    bool, typer.Option("--proven-only", help="Take no estimated point, whatever is missed by a proven one.")
]
Cohort = Annotated[
    Path | None,
    typer.Option(
        help="Embeddings of people or things that are in no gallery, as impostors; with one, a gallery of a "
        "few classes can be calibrated, or of a single one."
    ),
]
Unknown = Annotated[
    Path | None,
    typer.Option(
        help="Embeddings of real queries whose classes are in no gallery: half to fit on, half to prove."
    ),
]
Group = Annotated[
    list[str] | None,
    typer.Option(help="Metadata column, e.g. site: targets must be met in each of its groups; repeatable."),
]
ExcludeSame = Annotated[
    list[str] | None,
    typer.Option(
        help="Leave out pairs. COLUMN: every pair with one value of it, e.g. one camera, other people's too. "
        "market-1501:COLUMN: the same label and the same value. near-copy: bursts within a label. "
        "near-time:COLUMN: one label within a minute. Repeatable: pairs that share any."
    ),
]
Vectors = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MOST_VECTORS,
        help="1:N. How many vectors of one object a query has, decided together: the frames of a track, a "
        "burst (default 1). Items of a class are taken together at random, with --exclude-same those of one "
        "session or camera.",
    ),
]
FoldLabels = Annotated[
    bool,
    typer.Option(
        "--fold-labels",
        help="Take labels that differ in case, blanks, invisible characters or Unicode form alone as one.",
    ),
]
UnknownLabel = Annotated[
    list[str] | None,
    typer.Option(
        help="Label of no identity, e.g. oos: its items are queries that nothing should match; repeatable."
    ),
]
Thumbnails = Annotated[
    int | None,
    typer.Option(
        min=SMALLEST_THUMBNAIL,
        max=LARGEST_THUMBNAIL,
        help="Keep a small picture of each item, at most so many pixels long (96), or the beginning of "
        "its text, for people to look at; nothing is kept without it.",
    ),
]
PreprocessingOption = Annotated[
    str | None,
    typer.Option(help="How inputs are prepared: a YAML file, or a preset such as imagenet or clip."),
]
EncoderInput = Annotated[
    str | None, typer.Option("--input", help="The network's input, where it has several.")
]
EncoderOutput = Annotated[
    str | None,
    typer.Option("--output", help="The network's output that is the embedding, where it has several."),
]
SetBundleKeys = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key of index.* or calibration.*; repeatable.")
]
