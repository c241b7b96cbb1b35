"""``limen feedback``: what people said about decisions, for the next training."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.console import say
from common.errors import InputError, needs
from limen.cli.commands.data_folder import Database, find_only_model

if TYPE_CHECKING:
    from limen.pipeline.feedback_pairs import FeedbackPairs, NamedItem

app = typer.Typer(help="What people said about decisions, for the next training.", no_args_is_help=True)


@app.callback()
def feedback() -> None:
    """What people said about decisions, for the next training."""


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="The file to write: .parquet or .csv.")],
    data: Annotated[
        Path | None, typer.Option(help="The data folder that `limen serve --data` writes.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Instead: the address of a running service.")] = None,
    key: Annotated[str | None, typer.Option(help="Its key.", envvar="LIMEN_KEY")] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Whose feedback, where the data folder holds that of several models.")
    ] = None,
    database: Database = None,
    text_column: Annotated[
        str,
        typer.Option(help="The metadata field that holds the text of an item; without it pairs name ids."),
    ] = "text",
    only_hard: Annotated[bool, typer.Option(help="Only pairs whose decision was wrong.")] = False,
) -> None:
    """Write judged pairs of items as `a,b,same`, which `data.kind: text` trains on; wrong decisions first."""
    with needs("limen feedback export", "serve"):
        from limen.pipeline.feedback_pairs import SUFFIXES, write_pairs
    if (data is None) == (url is None):
        raise InputError("Give --data FOLDER, or --url http://HOST:PORT of a running service.")
    if out.suffix not in SUFFIXES:
        raise InputError(f"--out: {out} must end in {' or '.join(SUFFIXES)}.")
    if data is not None:
        pairs = _read_folder(data, bundle, database, text_column, only_hard)
    else:
        pairs = _read_service(str(url), key, text_column, only_hard)
    write_pairs(pairs.rows, out)
    hard = sum(row["hard"] for row in pairs.rows)
    say(f"{out} holds {len(pairs.rows)} pairs, {hard} of them hard: the decision was wrong.")
    if pairs.without_items:
        say(
            f"{pairs.without_items} judged decisions are left out: their queries are no items. Enrol kept "
            "ones (POST /v1/unknowns/enroll), and they count."
        )
    if pairs.contradicting:
        say(f"{pairs.contradicting} pairs are left out: other feedback says that the two are the same.")


def _read_folder(
    data: Path, bundle: Path | None, database: str | None, text_column: str, only_hard: bool
) -> FeedbackPairs:
    from index.gallery.data_folder import open_item_store
    from index.store.feedback_entries import iterate_feedback
    from index.store.service_records import ServiceRecords
    from index.store.unknown_records import UnknownRecords
    from limen.pipeline.feedback_pairs import build_pairs
    from service.models.loaded_model import find_items_folder

    folder = find_only_model(data, database) if bundle is None else find_items_folder(bundle, data)
    with closing(open_item_store(folder, folder.name, database, read_only=True)) as store:

        def read_item(item_id: str) -> NamedItem | None:
            item = store.get(item_id)
            return None if item is None else _name(item_id, item.label, item.metadata.get(text_column))

        entries = iterate_feedback(ServiceRecords(store), UnknownRecords(store))
        return build_pairs(entries, read_item, only_hard=only_hard)


def _read_service(url: str, key: str | None, text_column: str, only_hard: bool) -> FeedbackPairs:
    from limen.client import Client, ServiceError
    from limen.pipeline.feedback_pairs import build_pairs

    with Client(url, key=key) as client:

        def read_item(item_id: str) -> NamedItem | None:
            try:
                item = client.item(item_id)
            except ServiceError as error:
                if error.problem.status == 404:
                    return None
                raise
            return _name(item_id, item.label, item.metadata.get(text_column))

        entries, cursor = [], None
        while True:
            page = client.feedback_page(cursor, 1000)
            entries += page.feedback
            cursor = page.next_cursor
            if cursor is None:
                break
        return build_pairs(entries, read_item, only_hard=only_hard)


def _name(item_id: str, label: str, text: object) -> NamedItem:
    from limen.pipeline.feedback_pairs import NamedItem

    return NamedItem(text if isinstance(text, str) and text.strip() else item_id, label)
