"""Give a bundle of vectors its encoder, once it has been seen to make those vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import numpy as np

from api_schemas.manifest import Manifest
from api_schemas.wrap_config import WrapConfig
from common.array_types import Float32s, Texts
from common.console import say
from common.errors import InputError
from index.attach_encoder import attach_encoder as write_with_encoder
from index.attach_encoder import check_without_encoder
from index.bundle import check_replaceable, read_bundle
from index.gallery.gallery import Gallery
from limen.pipeline.embed_data import RawData, open_data
from limen.pipeline.stage_encoder import stage_encoder

SAMPLED = 200
TOLERANCE = 0.01  # L2 distance of unit vectors: no similarity to anything changes by more


def attach_encoder(
    path: Path, config: WrapConfig, out: Path | None = None, tolerance: float = TOLERANCE
) -> Manifest:
    """Attach an encoder to a bundle of vectors that it made.

    Args:
        config: the encoder, and data that holds items of the bundle.
        out: another folder for the bundle; its own unless given.
        tolerance: largest L2 distance of a stored vector and the encoder's; no similarity differs by more.

    Raises:
        InputError: no item of the bundle is in the data, or the encoder makes other vectors: names the worst.
    """
    bundle = read_bundle(path)
    check_without_encoder(bundle)
    out = (out or path).absolute()
    check_replaceable(out, bundle.manifest.name)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        staged = stage_encoder(config.encoder, Path(scratch))
        say(f"{staged.describe()}.")
        if staged.encoder.dim != bundle.manifest.embedding_dim:
            raise InputError(
                f"{staged.name} makes vectors of {staged.encoder.dim} numbers, {path} holds vectors of "
                f"{bundle.manifest.embedding_dim}: it is another model."
            )
        data = open_data(config, staged)
        _check_reproduced(Gallery.open(path), data, staged.name, tolerance)
        return write_with_encoder(bundle, staged.folder, staged.model_hash, out)


def _check_reproduced(gallery: Gallery, data: RawData, name: str, tolerance: float) -> None:
    """Embed items of the bundle and compare; raises InputError that names the worst."""
    names = _match_ids(data.items.ids, gallery)
    rows = np.array([row for row, found in enumerate(names) if found is not None])
    if not len(rows):
        raise InputError(
            f"no item of the data is in the bundle: its ids are such as '{_get_first_id(gallery)}', those of "
            f"the data such as '{data.items.ids[0]}': give the data that the vectors were made of."
        )
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, SAMPLED).astype(int))]
    embedded = data.embed_rows(rows)
    stored = np.stack([_get_vector(gallery, str(names[row])) for row in rows])
    distances = np.linalg.norm(embedded - stored, axis=1)
    worst = int(distances.argmax())
    n_wrong = int((distances > tolerance).sum())
    found = (
        f"the worst is '{names[rows[worst]]}', by {distances[worst]:.2g} (similarity "
        f"{float(embedded[worst] @ stored[worst]):.4f})"
    )
    if n_wrong:
        raise InputError(
            f"{name} does not make the vectors of this bundle: {n_wrong} of {len(rows)} differ by more than "
            f"{tolerance:g}, {found}. Is it the model, and the preprocessing, that they were made with?"
        )
    say(f"Compared {len(rows)} items: every vector is made again to {tolerance:g}; {found}.")


def _match_ids(ids: Texts, gallery: Gallery) -> Sequence[str | None]:
    """For each item of the data its id in the bundle: its own, or its file's name with or without suffix."""
    forms: list[Callable[[str], str]] = [
        str,
        lambda name: PurePosixPath(name).name,
        lambda name: PurePosixPath(name).stem,
    ]
    given = ids.tolist()
    for form in forms:
        names = [form(name) for name in given]
        counts: Mapping[str, int] = Counter(names)
        matched = [name if counts[name] == 1 and gallery.get(name) is not None else None for name in names]
        if any(name is not None for name in matched):
            return matched
    return [None] * len(given)


def _get_vector(gallery: Gallery, item_id: str) -> Float32s:
    item = gallery.get(item_id)
    assert item is not None, "it was found before"
    return np.asarray(item.vector, dtype=np.float32)


def _get_first_id(gallery: Gallery) -> str:
    return gallery.page(None, 1)[0].id
