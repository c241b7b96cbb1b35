"""A bundle as the service holds it: gallery, encoder, operating points and report, loaded and audited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Literal

import numpy as np

from api_schemas.http.decisions import ActivePoints, EncoderInfo, OperatingPointSummary
from api_schemas.manifest import MANIFEST_FILE, Manifest
from api_schemas.operating_point import OperatingPoint, Score
from api_schemas.report import Report
from common.errors import BundleError
from encoder import Encoder
from index.bundle import REPORT_FILE
from index.gallery.gallery import Gallery
from index.gallery.live_gallery import LiveGallery
from service.errors.problems import NO_OPERATING_POINT, ServiceProblem
from service.settings import ServiceSettings
from service.telemetry import prometheus

PROBED_ROWS = 1_000
RECALL_ROWS = 20
LIGHT_SECONDS = 0.001
MODELS_FOLDER = "models"


@dataclass(frozen=True)
class StartupProbe:
    """How many probed rows found themselves and their neighbours, and what one plain search takes."""

    probed_rows: int
    self_recall: float
    recall: float
    search_seconds: float


@dataclass(frozen=True)
class LoadedModel:
    """One loaded model version; immutable, so a request that started on it ends on it."""

    gallery: Gallery
    live: LiveGallery | None
    encoder: Encoder | None
    points: Mapping[str, OperatingPoint]
    active_verify: OperatingPoint | None
    active_match: OperatingPoint | None
    reasons: tuple[str, ...]
    report: Report | None
    audit: StartupProbe

    @property
    def manifest(self) -> Manifest:
        """What the bundle says it holds."""
        return self.gallery.manifest

    @property
    def model_hash(self) -> str:
        """The model every vector here comes from."""
        return self.manifest.model_hash

    def is_light(self, queries: int) -> bool:
        """Whether plain searches are so quick that handing them to another thread would cost more."""
        return queries * self.audit.search_seconds < LIGHT_SECONDS

    def get_deciding_point(self, endpoint: str) -> OperatingPoint:
        """The active point of ``match`` or ``verify``; raises the problem ``no-operating-point``."""
        point = self.active_match if endpoint == "match" else self.active_verify
        if point is None:
            why = " ".join(self.reasons) or "The bundle was made without one."
            target = "--target-fpir" if endpoint == "match" else "--target-far"
            raise ServiceProblem(
                NO_OPERATING_POINT,
                f"No operating point decides /v1/{endpoint}. {why} Calibrate one with "
                f"`limen calibrate ... {target} 0.01` and export with --operating-point; search needs none.",
            )
        return point

    def summarize_points(self) -> list[OperatingPointSummary]:
        """All points without their classes, those that decide first."""
        ordered = sorted(
            self.points.values(), key=lambda point: (self._endpoint_of(point) is None, point.name)
        )
        return [self._summary(point) for point in ordered]

    def summarize_active_points(self) -> ActivePoints:
        """The points that decide now."""
        verify, match = self.active_verify, self.active_match
        return ActivePoints(
            verify=None if verify is None else self._summary(verify),
            match=None if match is None else self._summary(match),
            reasons=list(self.reasons),
        )

    def describe_encoder(self) -> EncoderInfo | None:
        """What the encoder takes; null for a bundle of vectors."""
        if self.encoder is None:
            return None
        preprocessing = self.encoder.preprocessing
        return EncoderInfo(kind=preprocessing.kind, shape=list(preprocessing.shape))

    def switch_point(self, point: OperatingPoint) -> LoadedModel:
        """This model with another point deciding; requests that run keep the one they began with."""
        self.gallery.decide_by(point)
        if endpoint_of(point) == "match":
            return replace(self, active_match=point)
        return replace(self, active_verify=point)

    def get_score(self, point_id: str | None) -> Score | None:
        """The kind of score of a point; of none, the similarity; None for a point that is not known."""
        if point_id is None:
            return Score()
        point = self.points.get(point_id)
        return None if point is None else point.score

    def check_point(self, point: OperatingPoint) -> None:
        """Raises BundleError for a point of another model."""
        if point.model_hash != self.model_hash:
            raise BundleError(
                f"The operating point '{point.id}' was calibrated for model {point.model_hash[:12]}, this is "
                f"{self.model_hash[:12]}: calibrate again with this model."
            )

    def _endpoint_of(self, point: OperatingPoint) -> Literal["match", "verify"] | None:
        if self.active_match is not None and point.id == self.active_match.id:
            return "match"
        if self.active_verify is not None and point.id == self.active_verify.id:
            return "verify"
        return None

    def _summary(self, point: OperatingPoint) -> OperatingPointSummary:
        names = OperatingPointSummary.model_fields.keys() - {"active_for"}
        fields = {name: getattr(point, name) for name in names}
        return OperatingPointSummary(**fields, active_for=self._endpoint_of(point))


def endpoint_of(point: OperatingPoint) -> Literal["match", "verify"]:
    """What a point decides: 1:N if it was made for FPIR, 1:1 otherwise."""
    return "match" if point.target.kind == "fpir" else "verify"


def load(path: Path, settings: ServiceSettings) -> LoadedModel:
    """Open a bundle, check it, probe it; takes seconds for a large one.

    Raises:
        BundleError: a checksum, schema or audit that fails, or a point of another model.
    """
    start = perf_counter()
    live = None
    if settings.data is not None:
        live = LiveGallery.open(path, find_items_folder(path, settings.data), database=settings.database_url)
    gallery = Gallery.open(path) if live is None else live
    manifest = gallery.manifest
    encoder = None
    if manifest.encoder is not None:
        encoder = Encoder.open(
            path, max_image_bytes=settings.max_image_bytes, max_image_pixels=settings.max_image_pixels
        )
        if encoder.dim != manifest.embedding_dim:
            raise BundleError(
                f"{path}: the encoder answers {encoder.dim} numbers, the index has {manifest.embedding_dim}."
            )
    points = gallery.operating_points
    active = manifest.operating_points
    served = LoadedModel(
        gallery=gallery,
        live=live,
        encoder=encoder,
        points=points,
        active_verify=_active(points, active.verify, path),
        active_match=_active(points, active.match, path),
        reasons=tuple(active.reasons),
        report=Report.load(path / REPORT_FILE) if REPORT_FILE in manifest.files else None,
        audit=_audit(gallery, path),
    )
    prometheus.LOAD_SECONDS.set(perf_counter() - start)
    prometheus.SELF_RECALL.set(served.audit.self_recall)
    prometheus.RECALL_PROBE.set(served.audit.recall)
    return served


def find_items_folder(bundle: Path, data: Path) -> Path:
    """Where the items of a bundle's model are kept: items belong to a model."""
    manifest = Manifest.load(bundle / MANIFEST_FILE)
    return data / MODELS_FOLDER / model_folder_name(manifest.model_hash)


def model_folder_name(model_hash: str) -> str:
    """The folder of a model's items by name."""
    return model_hash[:16]


def _active(points: Mapping[str, OperatingPoint], point_id: str | None, path: Path) -> OperatingPoint | None:
    if point_id is None:
        return None
    if point_id not in points:
        raise BundleError(f"{path}: the active operating point '{point_id}' is not in the bundle.")
    return points[point_id]


def _audit(gallery: Gallery, path: Path) -> StartupProbe:
    """Evenly spaced rows search for themselves: the first hit must be as near as the row is to itself."""
    probed = gallery.probe(PROBED_ROWS)
    if probed.found < probed.rows:
        raise BundleError(
            f"{path}: {probed.rows - probed.found} of {probed.rows} probed rows do not find themselves: "
            "run `limen verify` and build the bundle again."
        )
    # one probe is one plain search, which is also the self-query that readiness asks for
    took = []
    for _ in range(5):
        start = perf_counter()
        gallery.probe(1)
        took.append(perf_counter() - start)
    return StartupProbe(
        probed_rows=probed.rows,
        self_recall=probed.found / probed.rows,
        recall=recall_probe(gallery),
        search_seconds=min(took),
    )


def recall_probe(gallery: Gallery) -> float:
    """Recall@10 of some items against comparing with every row; takes as long as 20 exact searches."""
    queries = gallery.sample(RECALL_ROWS)
    if not len(queries):
        return 1.0
    found, exact = gallery.search(queries, 10), gallery.search(queries, 10, exact=True)
    shared = [
        len({hit.id for hit in one} & {hit.id for hit in other}) / max(1, len(other))
        for one, other in zip(found, exact, strict=True)
    ]
    return float(np.mean(shared))
