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
    str | None, typer.Option(help="Leave out pairs that share this column's value, e.g. camera.")
]
SetBundleKeys = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key of index.* or calibration.*; repeatable.")
]
