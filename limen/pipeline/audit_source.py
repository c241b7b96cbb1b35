"""What ``limen data audit`` looks at: items, the threshold they are compared by, and their pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from api_schemas.data_config import DataConfig
from api_schemas.label_audit import LabelAudit
from api_schemas.yaml_config import validate_mapping
from common.array_types import Float32s
from common.console import say, track
from common.errors import InputError, needs
from decision.scorers import Scorer
from embeddings.embedding_set import EmbeddingSet
from embeddings.files import read_embeddings
from encoder.encoder import Encoder
from evaluation.label_audit.audit_labels import MOST_FINDINGS, audit_labels
from index.gallery.gallery import Gallery
from limen.pipeline.evaluation_source import is_bundle, is_run, open_run, read_run

EMBEDDING_SUFFIXES = (".npz", ".parquet")
SIDE = 96  # pixels of the pictures in the page
PAGE = 4096
ReadPictures = Callable[[Sequence[str]], dict[str, bytes]]


@dataclass(frozen=True)
class AuditSource:
    """Items with what is known of them; without a threshold, one is estimated from the items.

    ``training_margins`` are those of ``audit_labels``; ``read_pictures`` gives the WebP of the items that
    have one, by id.
    """

    items: EmbeddingSet
    model_hash: str = ""
    threshold: float | None = None
    threshold_from: str = ""
    scorer: Scorer | None = None
    training_margins: Float32s | None = None
    read_pictures: ReadPictures = lambda ids: {}

    def audit(self, most: int = MOST_FINDINGS) -> LabelAudit:
        """The findings, ranked."""
        return audit_labels(
            self.items,
            threshold=self.threshold,
            threshold_from=self.threshold_from,
            scorer=self.scorer,
            training_margins=self.training_margins,
            model_hash=self.model_hash,
            most=most,
            track=track,
        )


def open_audit_source(source: Path, run: Path | None = None, bundle: Path | None = None) -> AuditSource:
    """Read a bundle, a run folder, an embeddings file, or raw data that a run or a bundle embeds.

    Args:
        run: embeds raw data.
        bundle: whose 1:1 threshold counts; embeds raw data unless ``run`` does.

    Raises:
        InputError: raw data without an encoder, or vectors that are not of the bundle's length.
    """
    if is_bundle(source):
        return _open_gallery(source)
    if is_run(source):
        found = _open_run_items(source)
    elif source.suffix in EMBEDDING_SUFFIXES and run is None:
        found = AuditSource(read_embeddings(source, say))
    else:
        found = _embed(source, run, bundle)
    return found if bundle is None else _decide_by(found, bundle)


def _open_gallery(path: Path) -> AuditSource:
    gallery = Gallery.open(path)
    items = list(_iterate_items(gallery))
    if not items:
        raise InputError(f"{path}: the gallery of this bundle is empty, there is nothing to audit.")
    ids, labels, vectors = zip(*items, strict=True)
    found = AuditSource(
        EmbeddingSet(np.stack(vectors), np.array(labels), np.array(ids)),
        gallery.manifest.model_hash,
        read_pictures=lambda ids: _keep_pictures(gallery.read_thumbnails(ids)),
    )
    return _decide_by(found, path, gallery)


def _iterate_items(gallery: Gallery) -> Iterator[tuple[str, str, np.ndarray]]:
    after: str | None = None
    while page := gallery.page(after, PAGE):
        after = page[-1].id
        yield from ((item.id, item.label, item.vector) for item in page)


def _decide_by(found: AuditSource, path: Path, opened: Gallery | None = None) -> AuditSource:
    """With the 1:1 threshold of a bundle, if it has one."""
    gallery = Gallery.open(path) if opened is None else opened
    if gallery.dim != found.items.dimension:
        raise InputError(
            f"{path} decides about vectors of {gallery.dim} numbers, the items have {found.items.dimension}."
        )
    point = gallery.operating_points.get(gallery.manifest.operating_points.verify or "")
    if point is None:
        return found
    scorer = gallery.prepare(point).scorer
    return replace(
        found,
        threshold=point.threshold,
        threshold_from=f"the operating point '{point.name}' of {path.name}",
        scorer=scorer,
    )


def _keep_pictures(thumbnails: dict[str, bytes]) -> dict[str, bytes]:
    """Pictures alone: the thumbnail of a text is text."""
    return {item_id: content for item_id, content in thumbnails.items() if content.startswith(b"RIFF")}


def _open_run_items(path: Path) -> AuditSource:
    opened = open_run(path)
    source = read_run(opened)
    items = source.collect_everything()
    return AuditSource(
        items,
        source.model_hash,
        training_margins=_spread_margins(opened.load_item_margins(), len(items)),
        read_pictures=lambda ids: _read_again(opened.config.data, Encoder.open(opened.ensure_encoder()), ids),
    )


def _spread_margins(margins: Float32s | None, n: int) -> Float32s | None:
    """Float32 [n]: those of the training items, which come first, and NaN for the others."""
    if margins is None:
        return None
    return np.concatenate([margins, np.full(n - len(margins), np.nan, np.float32)])


def _embed(source: Path, run: Path | None, bundle: Path | None) -> AuditSource:
    if run is None and bundle is None:
        raise InputError(
            f"{source} is neither embeddings (.npz, .parquet), a run folder nor a bundle: to audit raw data "
            "give --run or --bundle, whose encoder embeds it."
        )
    with needs("embedding raw data", "train"):
        from limen.pipeline.embed_data import DATA_KINDS, RawData
    if run is not None:
        opened = open_run(run)
        encoder = Encoder.open(opened.ensure_encoder(), threads=0)
        data = opened.config.data.model_copy(update={"path": str(source), "test_path": None})
    else:
        assert bundle is not None
        encoder = Encoder.open(bundle, threads=0)
        kind = DATA_KINDS[encoder.preprocessing.kind]
        data = validate_mapping(DataConfig, {"kind": kind, "path": str(source)}, [], "data")
    items = RawData(data, encoder).embed()
    return AuditSource(items, read_pictures=lambda ids: _read_again(data, encoder, ids))


def _read_again(data: DataConfig, encoder: Encoder, ids: Sequence[str]) -> dict[str, bytes]:
    """Pictures from the files of a data set."""
    from training.data.read_thumbnails import read_thumbnails

    try:
        read = read_thumbnails(data, encoder.preprocessing, np.array(ids), SIDE, track)
        pictures = {
            item_id: content for item_id, content in zip(ids, read, strict=True) if content is not None
        }
    except InputError as error:  # the data has moved since
        say(f"No pictures: {error}")
        return {}
    return _keep_pictures(pictures)
