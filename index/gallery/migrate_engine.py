"""Another engine for a bundle or a data folder, taken once sampled decisions are the same."""

from __future__ import annotations

import os
import shutil
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

from api_schemas.build_config import IndexConfig
from api_schemas.manifest import ITEMS_FILE, MANIFEST_FILE, Manifest
from common.errors import LimenError
from common.progress import Track, silent
from index.bundle import Bundle, check_replaceable, get_index_file, read_bundle, read_manifest
from index.engines.registry import discard_engines
from index.gallery.gallery import Gallery
from index.gallery.gallery_items import GenerationItems
from index.gallery.live_gallery import LiveGallery
from index.gallery.same_decisions import DecisionsDiffer, check_same_decisions
from index.search.generation import Generation
from index.verified_files import fsync_and_hash, publish


def migrate_bundle(
    path: Path, out: Path, config: IndexConfig, queries: int, track: Track = silent
) -> Manifest:
    """Write a bundle with another engine, all else as in ``path``; one that was broken off is continued.

    A crash leaves ``.OUT.migrating`` beside ``out``, which the next call takes up.

    Raises:
        InputError: ``out`` is something else than a bundle of that name.
        DecisionsDiffer: the new bundle would decide otherwise; nothing is left of it.
    """
    bundle = read_bundle(path)
    check_replaceable(out, bundle.manifest.name)
    staged = out.absolute().with_name(f".{out.name}.migrating")
    if not _is_continued(staged, bundle.manifest, config):
        _remove(staged)
        _write(bundle, staged, config, track)
    with closing(Gallery.open(path, track)) as before, closing(Gallery.open(staged, track)) as after:
        try:
            check_same_decisions(before, after, queries, track)
        except DecisionsDiffer:
            _remove(staged)
            raise
    publish(staged, out.absolute())
    return read_manifest(out)


def migrate_data_folder(
    path: Path,
    items: Path,
    config: IndexConfig,
    queries: int,
    track: Track = silent,
    database: str | None = None,
) -> int:
    """Rebuild the index of a data folder with another engine, which it keeps; returns the number of items.

    Raises DecisionsDiffer if it would decide otherwise; then all is as it was.
    """
    with LiveGallery.open(path, items, track=track, database=database) as live:
        bundle = read_bundle(path)

        def prove(generation: Generation) -> None:
            after = Gallery(bundle, GenerationItems(items, generation))
            check_same_decisions(live.gallery, after, queries, track)

        live.rebuild(track, config, prove)
        return live.gallery.n_items


def _write(bundle: Bundle, staged: Path, config: IndexConfig, track: Track) -> None:
    """The bundle with another engine; its manifest comes last, so that it is whole or has none."""
    manifest = bundle.manifest
    replaced = {ITEMS_FILE, get_index_file(manifest)}
    for name in manifest.files.keys() - replaced:
        (staged / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(bundle.path / name, staged / name)  # neither bundle is ever written to
        except OSError:
            shutil.copyfile(bundle.path / name, staged / name)
    generation = bundle.open_generation(track).build_other_engine(config, track)
    generation.save(staged)
    changed = manifest.model_copy(
        update={
            "created_at": datetime.now(UTC),
            "index": generation.description,
            "counts": generation.counts.model_copy(update={"cohort": manifest.counts.cohort}),
            "files": fsync_and_hash(staged),
        }
    )
    changed.save(staged / MANIFEST_FILE)


def _is_continued(staged: Path, of: Manifest, config: IndexConfig) -> bool:
    """Whether an earlier call was broken off after the new bundle was written, and was asked for the same."""
    try:
        found = read_manifest(staged)
    except LimenError:
        return False
    asked = config.model_dump(exclude={"kind"}, exclude_unset=True)
    names = {name: "target_recall" if name == "recall" else name for name in asked}
    is_asked = all(found.index.parameters.get(names[name], value) == value for name, value in asked.items())
    same = ("name", "model_hash", "data_hash", "operating_points", "version")
    return (
        is_asked
        and config.kind in (found.index.kind, "auto")
        and all(getattr(found, name) == getattr(of, name) for name in same)
    )


def _remove(staged: Path) -> None:
    if staged.exists():
        with suppress(LimenError):
            manifest = read_manifest(staged)
            discard_engines(staged, manifest.model_hash, manifest.embedding_dim)
        shutil.rmtree(staged)
