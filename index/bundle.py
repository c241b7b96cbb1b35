"""The bundle: one folder that holds everything a decision depends on (docs/specification.md, Bundle)."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from api_schemas.base import Schema
from api_schemas.build_config import IndexConfig
from api_schemas.class_corners import CLASS_CORNERS_FILE, ClassCorners
from api_schemas.manifest import (
    COHORT_FILE,
    COHORT_LABELS_FILE,
    CONFIG_FILE,
    ENCODER_FILE,
    ITEMS_FILE,
    MANIFEST_FILE,
    POINTS_FOLDER,
    PREPROCESSING_FILE,
    README_FILE,
    REPORT_FILE,
    THUMBNAILS_FILE,
    TOKENIZER_FILE,
    VECTORS_FILE,
    ActiveOperatingPoints,
    EncoderFiles,
    Manifest,
)
from api_schemas.operating_point import MATCH_PROBABILITY_FILE, OperatingPoint, Probability
from api_schemas.report import Report
from common.array_types import UnitVectors
from common.errors import BundleError, InputError
from common.progress import Track, silent
from decision.class_arrays import ClassArrays
from decision.decider import Decider, compute_densities
from decision.errors import check_model
from decision.operating_point_files import read_class_arrays, save_class_arrays
from decision.scorer_registry import needs_class_arrays, needs_cohort, open_scorer
from decision.scorers import Scorer
from decision.targets import ENDPOINT_OF_TARGET, Endpoint, get_endpoint
from embeddings.embedding_set import EmbeddingSet
from embeddings.hashes import combine_encoder_hashes, hash_items, hash_rows
from index.engines.registry import ENGINES
from index.engines.self_recall import TOLERATED
from index.items.stored_item import check_built_items
from index.items.thumbnail_file import ThumbnailFile, write_thumbnails
from index.search.generation import Generation
from index.verified_files import HashCache, check_files, fsync_and_hash, publish

Document = TypeVar("Document", bound=Schema)


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files are what its manifest says.

    Attributes:
        is_new: its vectors were not checked before.
    """

    path: Path
    manifest: Manifest
    points: Mapping[str, OperatingPoint]
    is_new: bool = True
    _scorers: dict[str, Scorer] = field(default_factory=dict, repr=False)

    def build_decider(self, point: OperatingPoint) -> Decider:
        """A point ready to be applied; points of one score share its scorer.

        Raises BundleError if it is of another model, or the bundle lacks its cohort or class model.
        """
        check_model(point, self.manifest.model_hash)
        known = self._scorers.get(point.score.model_dump_json())
        if known is not None:
            return Decider(point, known)
        cohort = _read_cohort(self.path, self.manifest) if needs_cohort(point.score) else None
        arrays = self._read_class_arrays(point) if needs_class_arrays(point.score) else None
        decider = _build_decider(point, cohort, arrays)
        self._scorers[point.score.model_dump_json()] = decider.scorer
        return decider

    def _read_class_arrays(self, point: OperatingPoint) -> ClassArrays | None:
        name = _name_class_arrays(str(point.score.class_model_sha256))
        if name not in self.manifest.files:
            return None
        try:
            return read_class_arrays(self.path / name)
        except InputError as error:
            raise BundleError(str(error)) from None

    def open_generation(self, track: Track = silent) -> Generation:
        """Vectors, items and engine, memory-mapped; raises BundleError for rows that are no unit vectors."""
        manifest = self.manifest
        generation = Generation.open(
            self.path, manifest.index, manifest.embedding_dim, manifest.model_hash, track
        )
        if self.is_new:
            generation.check_rows()
        return generation

    def open_thumbnails(self) -> ThumbnailFile | None:
        """The thumbnails of the items, if it has any."""
        if THUMBNAILS_FILE not in self.manifest.files:
            return None
        return ThumbnailFile.open(self.path, self.manifest.counts.items)


def write_bundle(
    out: Path,
    *,
    name: str,
    items: EmbeddingSet,
    model_hash: str,
    index_config: IndexConfig,
    encoder_folder: Path | None = None,
    report: Report | None = None,
    operating_points: Sequence[OperatingPoint] = (),
    active: Mapping[Endpoint, str | None] | None = None,
    reasons: Sequence[str] = (),
    choice: str | None = None,
    config_yaml: str = "",
    cohort: EmbeddingSet | None = None,
    class_arrays: Iterable[ClassArrays] = (),
    readme: str | None = None,
    class_corners: ClassCorners | None = None,
    match_probability: Probability | None = None,
    vectors_file: Path | None = None,
    thumbnails: Iterable[bytes | None] = (),
    gallery_model_hash: str | None = None,
    track: Track = silent,
) -> Manifest:
    """Build the index, audit it and write a bundle; a crash leaves the old bundle at ``out`` or none.

    Args:
        out: the bundle's folder; an older bundle of that name there is replaced.
        encoder_folder: holds ``encoder.onnx``, ``preprocessing.json`` and perhaps a tokenizer.
        active: ids of the points that decide.
        reasons: why a point is missing.
        choice: why these points decide.
        class_arrays: of the class models that points need.
        readme: a model card for people, ``README.md``.
        class_corners: of a model with fixed class vectors, for the training of its next version.
        match_probability: what the model's loss learned of it, from a cosine.
        vectors_file: the ``.npy`` on the same disk that the items' vectors are mapped from; it becomes the
            bundle's instead of being written again.
        thumbnails: of each item, in their order.
        gallery_model_hash: of the model that made the vectors, where that is not ``model_hash``.

    Raises:
        InputError: ``out`` is something else than a bundle of that name, or the encoder's files are missing.
        BundleError: an operating point of another model, or an active id that is not among the points.
    """
    out, active = out.absolute(), active or {}
    check_replaceable(out, name)
    check_built_items(items)
    _check_points(operating_points, active, model_hash)
    now = datetime.now(UTC)
    folder = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    folder.mkdir(parents=True)
    try:
        cohort_vectors = None if cohort is None else cohort.vectors
        arrays = {of_points.compute_hash(): of_points for of_points in class_arrays}
        deciders = [
            _build_decider(point, cohort_vectors, arrays.get(str(point.score.class_model_sha256)))
            for point in operating_points
        ]
        densities = compute_densities(deciders, items.vectors, lambda: items.labels)
        if vectors_file is not None:
            vectors_file.rename(folder / VECTORS_FILE)
        generation = Generation.build(items, index_config, densities, track)
        generation.save(folder)
        write_thumbnails(folder, thumbnails)
        encoder = None if encoder_folder is None else copy_encoder(encoder_folder, folder)
        if cohort is not None:
            np.save(folder / COHORT_FILE, cohort.vectors)
            pq.write_table(pa.table({"label": pa.array(cohort.labels)}), folder / COHORT_LABELS_FILE)
        (folder / POINTS_FOLDER).mkdir()
        for point in operating_points:
            point.save(folder / POINTS_FOLDER / f"{point.id}.json")
        for digest, of_points in arrays.items():
            save_class_arrays(of_points, folder / _name_class_arrays(digest))
        if report is not None:
            report.save(folder / REPORT_FILE)
        (folder / CONFIG_FILE).write_text(config_yaml, encoding="utf-8")
        if readme is not None:
            (folder / README_FILE).write_text(readme, encoding="utf-8")
        if class_corners is not None:
            class_corners.save(folder / CLASS_CORNERS_FILE)
        if match_probability is not None:
            match_probability.save(folder / MATCH_PROBABILITY_FILE)
        manifest = Manifest(
            name=name,
            version=now.strftime("%Y%m%dT%H%M%SZ"),
            created_at=now,
            model_hash=model_hash,
            gallery_model_hash=gallery_model_hash,
            data_hash=hash_items(items),
            embedding_dim=items.dimension,
            encoder=encoder,
            index=generation.description,
            counts=generation.counts.model_copy(update={"cohort": 0 if cohort is None else len(cohort)}),
            operating_points=ActiveOperatingPoints(
                verify=active.get("verify"),
                match=active.get("match"),
                reasons=list(reasons),
                ladder=[point.id for point in operating_points],
                choice=choice,
            ),
            files=fsync_and_hash(folder),
        )
        manifest.save(folder / MANIFEST_FILE)
        publish(folder, out)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return manifest


def read_manifest(path: Path) -> Manifest:
    """The manifest of a bundle; raises BundleError if it is missing or not one this version reads."""
    if not path.is_dir():
        raise BundleError(
            f"{path} is not a folder: give a bundle made by `limen export`, `limen build` or `limen wrap`."
        )
    if not (path / MANIFEST_FILE).is_file():
        raise BundleError(f"{path} is not a bundle: it has no {MANIFEST_FILE}.")
    return _read(Manifest, path / MANIFEST_FILE)


def read_bundle(path: Path, hashes: HashCache | None = None) -> Bundle:
    """Check a bundle's files against its manifest, byte for byte, and read its operating points.

    Files that ``hashes`` knows and that have not changed since are not hashed again. Raises BundleError
    naming the file that is missing, changed or leads outside, or the point that is foreign.
    """
    manifest = read_manifest(path)
    required = [VECTORS_FILE, ITEMS_FILE, get_index_file(manifest), CONFIG_FILE]
    if manifest.encoder is not None:
        required += [manifest.encoder.network, manifest.encoder.preprocessing, *manifest.encoder.others]
    for name in required:
        if name not in manifest.files:
            raise BundleError(f"{path / MANIFEST_FILE} lists no {name}, which every such bundle has.")
    is_new = hashes is None or not hashes.knows(path / VECTORS_FILE)
    check_files(path, manifest.files, hashes, unhashed=[THUMBNAILS_FILE])  # read when asked for: size alone
    points = {}
    for name in sorted(manifest.files):
        if name.startswith(f"{POINTS_FOLDER}/") and name.endswith(".json"):
            point = _read(OperatingPoint, path / name)
            points[point.id] = point
    decides = manifest.operating_points
    active: dict[Endpoint, str | None] = {"verify": decides.verify, "match": decides.match}
    _check_points(list(points.values()), active, manifest.model_hash)
    return Bundle(path, manifest, points, is_new)


def get_index_file(manifest: Manifest) -> str:
    """The file of a bundle's engine, which an earlier version may have written under another name."""
    engine = ENGINES[manifest.index.kind]
    is_older = engine.file not in manifest.files and engine.older_file in manifest.files
    return str(engine.older_file) if is_older else engine.file


def check_model_hash(path: Path, manifest: Manifest) -> None:
    """Raises BundleError for an encoder of another model; of a bundle of vectors only the name is hashed."""
    if manifest.encoder is None:
        return
    files = (manifest.files[name] for name in (manifest.encoder.network, manifest.encoder.preprocessing))
    if combine_encoder_hashes(*(entry.sha256 for entry in files)) != manifest.model_hash:
        raise BundleError(
            f"{path / MANIFEST_FILE}: the model_hash is not that of the encoder and its preprocessing: "
            "export the bundle again."
        )


def verify_bundle(path: Path, track: Track = silent) -> Manifest:
    """Check every checksum, schema and hash, every row and id, and run the full self-recall audit.

    Raises BundleError for the first that is not right.
    """
    bundle = read_bundle(path)
    manifest = bundle.manifest
    check_files(path, {name: manifest.files[name] for name in {THUMBNAILS_FILE} & manifest.files.keys()})
    bundle.open_thumbnails()
    check_model_hash(path, manifest)
    if REPORT_FILE in manifest.files:
        report = _read(Report, path / REPORT_FILE)
        if report.model_hash != manifest.model_hash:
            raise BundleError(f"{path / REPORT_FILE} is about another model than the bundle.")
    generation = bundle.open_generation(track)
    index_file = get_index_file(manifest)
    known = {"cohort": manifest.counts.cohort}
    if generation.engine.is_remote:  # what a server misses is the server's, not the bundle's
        known["side_list"] = manifest.counts.side_list
    if generation.counts.model_copy(update=known) != manifest.counts:
        raise BundleError(
            f"{path / MANIFEST_FILE}: the counts are not those of {ITEMS_FILE} and {index_file}."
        )
    items = generation.items
    try:
        items.check_order()
    except BundleError as error:
        raise BundleError(f"{path / ITEMS_FILE}: {error}") from None
    labels = np.array(items.classes, dtype=np.str_)[items.label_codes]
    if hash_rows(generation.vectors, labels) != manifest.data_hash:
        raise BundleError(
            f"{path / MANIFEST_FILE}: the data_hash is not that of the rows and labels: build the "
            "bundle again."
        )
    if COHORT_FILE in manifest.files:
        _read_cohort(path, manifest)
    for point in bundle.points.values():
        bundle.build_decider(point)
    lost = generation.find_lost_rows(track)
    audit = manifest.index.self_recall
    not_probed = 0 if audit is None else manifest.counts.distinct_vectors - audit.probed
    if len(lost) > TOLERATED * not_probed:
        raise BundleError(
            f"{path / index_file}: {len(lost)} rows do not find themselves, the first is item "
            f"'{generation.items.ids[int(lost[0])]}': build the bundle again."
        )
    return manifest


def _read(document: type[Document], file: Path) -> Document:
    try:
        return document.load(file)
    except InputError as error:
        raise BundleError(str(error)) from None


def check_replaceable(out: Path, name: str) -> None:
    """Raises InputError unless ``out`` may be written: only a bundle of the same name is replaced.

    To be called before long work, too. A damaged bundle raises BundleError.
    """
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir() or out.is_symlink():
        raise InputError(f"{out} exists and is not a folder: choose another folder for the bundle.")
    if not any(out.iterdir()):
        return
    if not (out / MANIFEST_FILE).is_file():
        raise InputError(f"{out} holds files that are no bundle: choose another or an empty folder.")
    old = read_manifest(out).name
    if old != name:
        raise InputError(
            f"{out} holds the bundle '{old}', this one is '{name}': choose another folder, "
            "or remove it first."
        )


def _check_points(
    points: Sequence[OperatingPoint], active: Mapping[Endpoint, str | None], model_hash: str
) -> None:
    by_id = {point.id: point for point in points}
    if len(by_id) != len(points):
        raise BundleError("two operating points have the same id: give each its own.")
    for point in points:
        check_model(point, model_hash)
    for endpoint, point_id in active.items():
        if point_id is None:
            continue
        if point_id not in by_id:
            raise BundleError(
                f"the operating point '{point_id}' that is to decide {endpoint} is not in the bundle."
            )
        point = by_id[point_id]
        if get_endpoint(point.target) != endpoint:
            kinds = [kind for kind, decides in ENDPOINT_OF_TARGET.items() if decides == endpoint]
            raise BundleError(
                f"operating point '{point.name}' has the target {point.target.kind}, "
                f"{endpoint} is decided by {' or '.join(kinds)}."
            )


def _read_cohort(path: Path, manifest: Manifest) -> UnitVectors | None:
    if COHORT_FILE not in manifest.files:
        return None
    cohort: UnitVectors = np.load(path / COHORT_FILE, allow_pickle=False)
    if cohort.dtype != np.float32 or cohort.shape != (manifest.counts.cohort, manifest.embedding_dim):
        raise BundleError(
            f"{path / COHORT_FILE} holds {cohort.dtype} {cohort.shape}, the manifest says float32 "
            f"{(manifest.counts.cohort, manifest.embedding_dim)}."
        )
    return cohort


def _name_class_arrays(digest: str) -> str:
    """The file of a class model, which all points of one score share."""
    return f"{POINTS_FOLDER}/{digest[:16]}.classes.npz"


def _build_decider(
    point: OperatingPoint, cohort: UnitVectors | None, class_arrays: ClassArrays | None
) -> Decider:
    if needs_class_arrays(point.score) and class_arrays is None:
        digest = str(point.score.class_model_sha256)[:12]
        raise BundleError(
            f"operating point '{point.name}' needs the class model {digest}, which is not in the "
            "bundle: export a bundle with `--operating-point FILE`, beside which `limen calibrate` wrote the "
            "`.classes.npz` of that model."
        )
    try:
        return Decider(point, open_scorer(point.score, cohort, class_arrays))
    except InputError as error:
        raise BundleError(f"operating point '{point.name}': {error}") from None


def copy_encoder(source: Path, folder: Path) -> EncoderFiles:
    """Copy an encoder's files; raises InputError when they are not there."""
    for name in (ENCODER_FILE, PREPROCESSING_FILE):
        if not (source / name).is_file():
            raise InputError(f"{source} has no {name}: an encoder is exported there first.")
    others = [TOKENIZER_FILE] if (source / TOKENIZER_FILE).is_file() else []
    for name in (ENCODER_FILE, PREPROCESSING_FILE, *others):
        shutil.copyfile(source / name, folder / name)
    return EncoderFiles(others=others)
