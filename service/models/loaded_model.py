"""A loaded bundle: gallery, encoder, operating points and report, checked and probed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter

import numpy as np

from api_schemas.http.decisions import ActivePoints, EncoderInfo, OperatingPointSummary
from api_schemas.manifest import MANIFEST_FILE, REPORT_FILE, Manifest
from api_schemas.operating_point import OperatingPoint, Score
from api_schemas.report import Report
from common.errors import BundleError
from decision.errors import NoOperatingPoint
from decision.targets import Endpoint, get_endpoint
from encoder import Encoder, InputLimits
from index.bundle import check_model_hash
from index.gallery.gallery import Gallery
from index.gallery.live_gallery import LiveGallery
from index.items.stored_item import StoredItem
from index.store.write_order import AuditFile
from service.errors.problems import READ_ONLY, ServiceProblem
from service.models.class_table import ClassTables
from service.models.label_notes import LabelNotes
from service.settings import ServiceSettings
from service.telemetry import logs, prometheus
from service.telemetry.log_progress import log_progress

PROBED_ROWS = 1_000
RECALL_ROWS = 20
LIGHT_SECONDS = 0.001
ITEMS_READ_AT_ONCE = 4_096
MODELS_FOLDER = "models"


@dataclass(frozen=True)
class StartupProbe:
    """Result of the searches at startup: self-recall, recall@10, and the seconds of one plain search."""

    probed_rows: int
    self_recall: float
    recall: float
    search_seconds: float


@dataclass(frozen=True)
class LoadedModel:
    """One loaded model version; immutable, so that a request ends on the version it started on."""

    gallery: Gallery
    live: LiveGallery | None
    encoder: Encoder | None
    points: Mapping[str, OperatingPoint]
    active_verify: OperatingPoint | None
    active_match: OperatingPoint | None
    reasons: tuple[str, ...]
    report: Report | None
    probe: StartupProbe

    @cached_property
    def label_notes(self) -> LabelNotes:
        """What there is to say about labels that are written."""
        return LabelNotes(self.gallery)

    @cached_property
    def class_tables(self) -> ClassTables:
        """Every class with its rates."""
        return ClassTables()

    @property
    def has_query_tower(self) -> bool:
        """Whether queries have a tower of their own, so that their vectors are none of items."""
        return self.encoder is not None and self.encoder.queries is not self.encoder

    @property
    def manifest(self) -> Manifest:
        """The manifest of the bundle."""
        return self.gallery.manifest

    @property
    def model_hash(self) -> str:
        """The model that all vectors come from."""
        return self.manifest.model_hash

    @property
    def rebuild_error(self) -> str | None:
        """Why the last background rebuild of the index failed; None if it did not."""
        return None if self.live is None else self.live.rebuild_error

    def is_light(self, queries: int) -> bool:
        """Whether so many plain searches are quicker than handing them to another thread."""
        return queries * self.probe.search_seconds < LIGHT_SECONDS

    def get_deciding_point(self, endpoint: Endpoint) -> OperatingPoint:
        """The active point of an endpoint; raises NoOperatingPoint."""
        point = self.active_match if endpoint == "match" else self.active_verify
        if point is None:
            raise NoOperatingPoint(endpoint, self.reasons)
        return point

    def get_live_gallery(self) -> LiveGallery:
        """The gallery that can be written to; raises the problem ``read-only`` (409)."""
        if self.live is None:
            raise ServiceProblem(
                READ_ONLY,
                "The service was started without a data folder: add --data DIR to keep items and feedback.",
            )
        return self.live

    def iterate_items(self) -> Iterator[StoredItem]:
        """All items of the gallery, by id."""
        after: str | None = None
        while page := self.gallery.page(after, ITEMS_READ_AT_ONCE):
            after = page[-1].id
            yield from page

    def summarize_points(self) -> list[OperatingPointSummary]:
        """All points without their per-class rates; the active ones first."""
        summaries = [self._summarize(point) for point in self.points.values()]
        return sorted(summaries, key=lambda point: (point.active_for is None, point.name))

    def summarize_active_points(self) -> ActivePoints:
        """The points that decide now."""
        verify, match = self.active_verify, self.active_match
        return ActivePoints(
            verify=None if verify is None else self._summarize(verify),
            match=None if match is None else self._summarize(match),
            reasons=list(self.reasons),
        )

    def describe_encoder(self) -> EncoderInfo | None:
        """The kind and shape of the encoder's inputs; None for a bundle of vectors."""
        if self.encoder is None:
            return None
        preprocessing = self.encoder.preprocessing
        return EncoderInfo(
            kind=preprocessing.kind,
            shape=list(preprocessing.shape),
            provider=self.encoder.provider,
            provider_note=self.encoder.provider_note,
        )

    def switch_point(self, point: OperatingPoint) -> LoadedModel:
        """A copy of this model with another active point; requests in progress keep theirs."""
        self.gallery.decide_by(point)
        if get_endpoint(point.target) == "match":
            return replace(self, active_match=point)
        return replace(self, active_verify=point)

    def get_score(self, point_id: str | None) -> Score | None:
        """The score that a point thresholds: of None the similarity, of an unknown point None."""
        if point_id is None:
            return Score()
        point = self.points.get(point_id)
        return None if point is None else point.score

    def _summarize(self, point: OperatingPoint) -> OperatingPointSummary:
        names = OperatingPointSummary.model_fields.keys() - {"active_for"}
        fields = {name: getattr(point, name) for name in names}
        active: dict[str | None, Endpoint] = {}
        if self.active_verify is not None:
            active[self.active_verify.id] = "verify"
        if self.active_match is not None:
            active[self.active_match.id] = "match"
        return OperatingPointSummary(**fields, active_for=active.get(point.id))


def load_model(path: Path, settings: ServiceSettings, audit: AuditFile | None = None) -> LoadedModel:
    """Open, check and probe a bundle; takes seconds for a large one.

    Raises:
        BundleError: a checksum, schema or probe that fails, or a point of another model.
    """
    start = perf_counter()
    live = None
    if settings.data is not None:
        items_folder = find_items_folder(path, settings.data)
        live = LiveGallery.open(
            path,
            items_folder,
            database=settings.database_url,
            audit=audit,
            bounds=settings.metadata_bounds,
            track=log_progress,
        )
    gallery = Gallery.open(path, log_progress) if live is None else live.gallery
    manifest = gallery.manifest
    encoder = None
    if manifest.encoder is not None:
        check_model_hash(path, manifest)
        listed = [manifest.encoder.network, manifest.encoder.preprocessing, *manifest.encoder.others]
        limits, provider = _build_input_limits(settings), settings.encoder_provider
        encoder = Encoder.open(path, listed=listed, limits=limits, provider=provider)
        if encoder.provider_note is not None:
            logs.LOGGER.warning(encoder.provider_note)
        if encoder.dim != manifest.embedding_dim:
            raise BundleError(
                f"{path}: the encoder makes vectors of {encoder.dim} numbers, the index holds vectors of "
                f"{manifest.embedding_dim}: build or export the bundle again."
            )
    points = gallery.operating_points
    active = manifest.operating_points
    model = LoadedModel(
        gallery=gallery,
        live=live,
        encoder=encoder,
        points=points,
        active_verify=_select_point(points, active.verify, path),
        active_match=_select_point(points, active.match, path),
        reasons=tuple(active.reasons),
        report=Report.load(path / REPORT_FILE) if REPORT_FILE in manifest.files else None,
        probe=_probe_gallery(gallery, path),
    )
    prometheus.LOAD_SECONDS.labels(settings.gallery).set(perf_counter() - start)
    prometheus.SELF_RECALL.labels(settings.gallery).set(model.probe.self_recall)
    prometheus.RECALL_PROBE.labels(settings.gallery).set(model.probe.recall)
    return model


def _build_input_limits(settings: ServiceSettings) -> InputLimits:
    return InputLimits(
        image_bytes=settings.max_image_bytes,
        image_pixels=settings.max_image_pixels,
        image_side=settings.max_image_side,
        image_scans=settings.max_image_scans,
        audio_bytes=settings.max_audio_bytes,
        audio_seconds=settings.max_audio_seconds,
    )


def find_items_folder(bundle: Path, data: Path) -> Path:
    """The folder of the items of a bundle's model, within a data folder."""
    manifest = Manifest.load(bundle / MANIFEST_FILE)
    return data / MODELS_FOLDER / get_model_folder_name(manifest.model_hash)


def get_model_folder_name(model_hash: str) -> str:
    """The name of the folder of a model's items."""
    return model_hash[:16]


def _select_point(
    points: Mapping[str, OperatingPoint], point_id: str | None, path: Path
) -> OperatingPoint | None:
    if point_id is None:
        return None
    if point_id not in points:
        raise BundleError(f"{path}: the active operating point '{point_id}' is not in the bundle.")
    return points[point_id]


def _probe_gallery(gallery: Gallery, path: Path) -> StartupProbe:
    """Search for evenly spaced rows: the first hit must be as similar as the row is to itself."""
    probe = gallery.probe(PROBED_ROWS)
    if probe.n_found < probe.rows:
        raise BundleError(
            f"{path}: {probe.rows - probe.n_found} of {probe.rows} probed rows do not find themselves: "
            "run `limen verify` and build the bundle again."
        )
    # one probe is one plain search
    durations = []
    for _ in range(5):
        start = perf_counter()
        gallery.probe(1)
        durations.append(perf_counter() - start)
    return StartupProbe(
        probed_rows=probe.rows,
        self_recall=probe.n_found / probe.rows if probe.rows else 1.0,  # an empty gallery lost nothing
        recall=measure_recall(gallery),
        # a server may take its time now and then: never in the thread that answers all others
        search_seconds=math.inf if gallery.is_remote else min(durations),
    )


def measure_recall(gallery: Gallery) -> float:
    """Recall@10 of the index against exact search, over 20 items."""
    queries = gallery.view.sample(RECALL_ROWS)
    if not len(queries):
        return 1.0
    approximate, exact = gallery.search(queries, 10), gallery.search(queries, 10, exact=True)
    recalls = [
        len({hit.id for hit in hits} & {hit.id for hit in exact_hits}) / max(1, len(exact_hits))
        for hits, exact_hits in zip(approximate, exact, strict=True)
    ]
    return float(np.mean(recalls))
