"""``limen rebuild``, ``limen backup`` and ``limen restore``: care of a service's data folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from limen.extras import needs
from limen.progress import say, track

Data = Annotated[Path, typer.Argument(help="The data folder that `limen serve --data` writes.")]


def rebuild(
    bundle: Annotated[Path, typer.Argument(help="The bundle the data folder belongs to.")], data: Data
) -> None:
    """Build the index of a data folder again from its items; nothing may be serving from it."""
    with needs("limen rebuild", "serve"):
        from index.live import LiveGallery
    with LiveGallery.open(bundle, data, track=track) as gallery:
        gallery.rebuild(track)
        say(f"{data} holds a new index of {gallery.n_items} items.")


def backup(data: Data, out: Annotated[Path, typer.Argument(help="A new folder for the backup.")]) -> None:
    """Copy items, vectors and operating points of a data folder, also while it is being served."""
    with needs("limen backup", "serve"):
        from index.backup import backup as copy
    copy(data, out)
    say(f"Backup in {out}. Next, when needed: limen restore {out} NEW_DATA_FOLDER")


def restore(
    backup_folder: Annotated[Path, typer.Argument(metavar="BACKUP", help="A folder made by `limen backup`.")],
    data: Annotated[Path, typer.Argument(help="A new or empty data folder.")],
) -> None:
    """Make a data folder from a backup, every file checked."""
    with needs("limen restore", "serve"):
        from index.backup import restore as make
    make(backup_folder, data)
    say(f"{data} is ready. Next: limen serve BUNDLE --data {data}")
