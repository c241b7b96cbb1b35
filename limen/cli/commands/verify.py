"""``limen verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.console import say, track
from common.errors import BundleError, needs


def verify(bundle: Annotated[Path, typer.Argument(help="The bundle's folder.")]) -> int:
    """Check a bundle: every checksum, the schema, and that every stored row finds itself.

    The exit code is 1, with the reason, if a check fails.
    """
    with needs("limen verify", "serve"):
        from index.bundle import verify_bundle
    try:
        manifest = verify_bundle(bundle, track=track)
    except BundleError as error:
        say(f"limen: {error}")
        return 1
    audit = manifest.index.self_recall
    self_recall = "every row finds itself"
    if audit is not None and audit.share_upper > 0:
        self_recall = f"{1 - audit.share_upper:.3%} of the rows or more find themselves"
    say(
        f"{bundle} is sound: {manifest.counts.items} items of {manifest.counts.classes} classes, "
        f"every file as recorded, {self_recall} ({manifest.counts.side_list} by the side list)."
    )
    return 0
