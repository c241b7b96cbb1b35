"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

BundleOut = Annotated[Path, typer.Option(help="The bundle's folder.")]
PointFiles = Annotated[
    list[Path] | None,
    typer.Option(help="Operating point to carry, instead of calibrating new ones; repeatable."),
]
TargetFar = Annotated[
    float | None, typer.Option(help="FAR that the 1:1 operating point keeps within (default 0.01).")
]
TargetFpir = Annotated[
    float | None, typer.Option(help="FPIR that the 1:N operating point keeps within (default 0.01).")
]
ExcludeSame = Annotated[
    list[str] | None,
    typer.Option(
        help="Leave out pairs. COLUMN: every pair with one value of it, e.g. one camera, other people's too. "
        "market-1501:COLUMN: the same label and the same value. near-copy: bursts within a label. "
        "near-time:COLUMN: one label within a minute. Repeatable: pairs that share any."
    ),
]
FoldLabels = Annotated[
    bool,
    typer.Option(
        "--fold-labels", help="Take labels that differ in case, blanks or Unicode form alone as one."
    ),
]
UnknownLabel = Annotated[
    list[str] | None,
    typer.Option(
        help="Label of no identity, e.g. oos: its items are queries that nothing should match; repeatable."
    ),
]
SetBundleKeys = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key of index.* or calibration.*; repeatable.")
]
