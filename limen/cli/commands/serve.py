"""``limen serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.errors import needs


def serve(
    bundle: Annotated[Path, typer.Argument(help="The bundle to serve; it is never written to.")],
    host: Annotated[str, typer.Option(help="Address to listen on.", envvar="LIMEN_HOST")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port to listen on.", min=0, max=65535, envvar="LIMEN_PORT")
    ] = 8000,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder for items and feedback; read-only without it.", envvar="LIMEN_DATA"),
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Processes; above 1 only without --data.", min=1, envvar="LIMEN_WORKERS")
    ] = 1,
) -> None:
    """Serve a bundle over HTTP: search, match, verify, the dashboard at /dashboard, docs at /docs."""
    with needs("limen serve", "serve"):
        from service.server import run
    run(bundle, host=host, port=port, data=data, workers=workers)
