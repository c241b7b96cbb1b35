"""A bundle of vectors becomes one with an encoder: the same rows and thresholds, another model's hash."""

from __future__ import annotations

import os
import secrets
import shutil
from datetime import UTC, datetime
from pathlib import Path

from api_schemas.manifest import ENCODER_FILE, MANIFEST_FILE, POINTS_FOLDER, REPORT_FILE, Manifest
from api_schemas.report import Report
from common.errors import InputError
from index.bundle import Bundle, check_replaceable, copy_encoder
from index.verified_files import fsync_and_hash, publish


def attach_encoder(bundle: Bundle, encoder_folder: Path, model_hash: str, out: Path) -> Manifest:
    """Write a bundle with an encoder's files to ``out``, which may be its own folder; a crash leaves the old.

    Its operating points and report are those of the vectors, which stay, and are bound to the encoder.

    Args:
        encoder_folder: holds ``encoder.onnx``, ``preprocessing.json`` and perhaps a tokenizer; that it makes
            these vectors has been checked.

    Raises:
        InputError: the bundle has an encoder already, or ``out`` holds something else.
    """
    check_without_encoder(bundle)
    manifest, out = bundle.manifest, out.absolute()
    check_replaceable(out, manifest.name)
    folder = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    folder.mkdir(parents=True)
    try:
        for name in manifest.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            _link(bundle.path / name, folder / name)
        encoder = copy_encoder(encoder_folder, folder)
        new_ids = {}
        for point_id, point in bundle.points.items():
            bound = point.with_changes(model_hash=model_hash)
            new_ids[point_id] = bound.id
            (folder / POINTS_FOLDER / f"{point_id}.json").unlink()
            bound.save(folder / POINTS_FOLDER / f"{bound.id}.json")
        if REPORT_FILE in manifest.files:
            report = Report.load(folder / REPORT_FILE).model_copy(update={"model_hash": model_hash})
            report.save(folder / REPORT_FILE)
        decides = manifest.operating_points
        now = datetime.now(UTC)
        changed = manifest.model_copy(
            update={
                "version": now.strftime("%Y%m%dT%H%M%SZ"),
                "created_at": now,
                "model_hash": model_hash,
                "encoder": encoder,
                "operating_points": decides.model_copy(
                    update={
                        "verify": decides.verify and new_ids[decides.verify],
                        "match": decides.match and new_ids[decides.match],
                        "ladder": [new_ids[point_id] for point_id in decides.ladder],
                    }
                ),
                "files": fsync_and_hash(folder),
            }
        )
        changed.save(folder / MANIFEST_FILE)
        publish(folder, out)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return changed


def check_without_encoder(bundle: Bundle) -> None:
    """Raises InputError for a bundle that has an encoder."""
    if bundle.manifest.encoder is not None:
        raise InputError(
            f"{bundle.path} has an encoder already ({ENCODER_FILE}): `limen wrap` makes another bundle."
        )


def _link(source: Path, target: Path) -> None:
    """A second name of the same file where the disk allows it, else a copy; no file is changed in place."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
