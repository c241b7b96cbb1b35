"""The queue from a match to the pool of unknowns: the request appends, a background task writes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Lock
from time import monotonic, time
from typing import Any, NamedTuple

import numpy as np

from api_schemas.http.decisions import KeptQueries, Reference
from common.array_types import Float32s, UnitVectors
from common.errors import LimenError
from decision.decider import MatchDecision
from encoder import RefusedInput
from encoder.thumbnails import make_thumbnail
from index.gallery.live_gallery import LiveGallery
from index.store.kept_queries import KeptQuery, make_id
from service.auth.decision_tokens import find_subject
from service.errors.problems import ServiceProblem
from service.models.loaded_model import LoadedModel
from service.models.model_registry import ModelRegistry
from service.runtime.compute_pool import ComputePool
from service.settings import ServiceSettings
from service.telemetry import prometheus
from service.telemetry.logs import LOGGER
from service.unknowns.pool_fields import PoolFields

EVERY = 1.0  # seconds between two writes, which is the most that a crash can lose
AT_ONCE = 200  # queries of one write: more a second are not worth the time that matching would lose
SHORTEST = 1e-6
MOST_INPUT_BYTES = 64 << 20  # of inputs that wait for their thumbnails
ERASE_EVERY = 600.0
DAY = 86_400.0


class _Offer(NamedTuple):
    """A query as a request leaves it: rows of its vectors, and its input where a thumbnail is wanted."""

    model: LoadedModel
    at: float
    vectors: bytes
    decision: MatchDecision
    token: str
    metadata: Mapping[str, Any] | None
    input: str | None


class KeepQueue:
    """Queries that wait to be kept; bounded, and what it has no room for is counted and forgotten.

    Attributes:
        overflowed: queries that were not kept because more came than are written.
    """

    def __init__(self, settings: ServiceSettings, writing: ComputePool, models: ModelRegistry) -> None:
        self.overflowed = 0
        self._settings = settings
        self._keeps = "off" if settings.data is None else settings.keep_unknowns
        self._writing = writing
        self._models = models
        self._waiting: deque[_Offer] = deque()
        self._input_bytes = 0
        self._lock = Lock()
        self._flushing = asyncio.Lock()
        # pictures are made by a thread of their own: neither requests nor writes wait for that
        self._pictures = ThreadPoolExecutor(1, thread_name_prefix="unknowns")
        self._stamp = 0  # of the last id, in microseconds: no two are equal
        self._fields: dict[str, PoolFields] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def is_on(self) -> bool:
        """Whether queries are kept at all."""
        return self._keeps != "off"

    def offer(
        self,
        model: LoadedModel,
        vectors: Float32s,
        sizes: Sequence[int] | None,
        ids: Sequence[str | None],
        queries: Sequence[Reference] | None,
        decisions: Sequence[MatchDecision],
        tokens: Sequence[str],
    ) -> None:
        """Leave the queries of a match to be kept: those that the setting names and that are no items.

        Args:
            vectors: float32 [n, d], unit rows.
            sizes: how many of them each query has; one each if None.
            ids: of each query the item that it is, or None.
            queries: as they came; None for raw rows.
            tokens: the ids of the decisions.
        """
        at, keeps_all, end = time(), self._keeps == "all", 0
        for number, decision in enumerate(decisions):
            start, end = end, end + (1 if sizes is None else sizes[number])
            if ids[number] is not None or not (keeps_all or decision.decision == "unknown"):
                continue
            if len(self._waiting) >= self._settings.unknowns_queue:
                self.overflowed += 1
                self._count("overflowed", 1)
                continue
            query = None if queries is None else queries[number]
            rows, metadata = vectors[start:end].tobytes(), getattr(query, "metadata", None)
            given = None if query is None else self._take_input(query)
            self._waiting.append(_Offer(model, at, rows, decision, tokens[number], metadata, given))

    def _take_input(self, query: Reference) -> str | None:
        """The input of a query, for a thumbnail, where one is wanted and there is room for it."""
        if self._settings.thumbnails is None or not isinstance(query.input, str):
            return None
        with self._lock:
            if self._input_bytes + len(query.input) > MOST_INPUT_BYTES:
                return None
            self._input_bytes += len(query.input)
        return query.input

    def start(self) -> None:
        """Write what waits every second, and erase what is too old, until ``close``."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Write what waits, and stop."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self.flush()
        self._pictures.shutdown(wait=True)

    def find_fields(self, live: LiveGallery, model_hash: str) -> PoolFields:
        """The metadata fields of the queries that a gallery keeps."""
        most = self._settings.metadata_bounds.gallery_fields
        return self._fields.setdefault(model_hash, PoolFields(live, most))

    async def flush(self) -> None:
        """Write all that waits, and let a write end that has begun."""
        await self._write()
        while self._waiting:
            await self._write()

    async def _run(self) -> None:
        erased_at = -ERASE_EVERY
        while True:
            await asyncio.sleep(EVERY)
            if self._waiting:
                await self._write()
            model = self._models.active
            if model is not None and model.live is not None and monotonic() > erased_at + ERASE_EVERY:
                erased_at = monotonic()
                await self._erase_old(model.live)

    async def _erase_old(self, live: LiveGallery) -> None:
        """Erase what is too old, also where nothing is kept any more."""
        try:
            await self._writing.run(lambda: self._add(live, []), bounded=False)
        except (LimenError, ServiceProblem) as error:
            LOGGER.error("old queries could not be erased: %s", error)

    def _add(self, live: LiveGallery, queries: list[KeptQuery]) -> None:
        expired_before = time() - DAY * self._settings.unknowns_days
        live.unknowns.add(queries, self._settings.unknowns_max, expired_before)

    async def _write(self) -> None:
        async with self._flushing:
            offers = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
            by_model: dict[str, list[_Offer]] = {}
            for offer in offers:
                by_model.setdefault(offer.model.model_hash, []).append(offer)
            for of_model in by_model.values():
                try:
                    await self._keep(of_model)
                except (LimenError, ServiceProblem) as error:
                    self._count("lost", len(of_model))
                    LOGGER.error("%d queries could not be kept: %s", len(of_model), error)

    async def _keep(self, offers: list[_Offer]) -> None:
        model = offers[0].model
        live = model.live
        if live is None:
            return
        loop = asyncio.get_running_loop()
        fields = self.find_fields(live, model.model_hash)
        queries = await loop.run_in_executor(self._pictures, lambda: self._prepare(offers, fields))
        await self._writing.run(lambda: self._add(live, queries), bounded=False)
        self._count("kept", len(queries))

    def _count(self, outcome: str, queries: int) -> None:
        prometheus.KEPT_QUERIES.labels(self._settings.gallery, outcome).inc(queries)

    def _prepare(self, offers: list[_Offer], fields: PoolFields) -> list[KeptQuery]:
        """Queries as they are kept; ids of queries that came at one time keep their order."""
        queries = []
        for offer, vector in zip(offers, _compute_unit_rows(offers), strict=True):
            if offer.input is not None:
                with self._lock:
                    self._input_bytes -= len(offer.input)
            if vector is None:
                continue
            self._stamp = max(self._stamp + 1, int(1e6 * offer.at))
            decision = offer.decision
            queries.append(
                KeptQuery(
                    id=make_id(self._stamp),
                    at=self._stamp / 1e6,
                    vector=vector,
                    decision=decision.decision,
                    candidate=decision.id,
                    label=decision.label,
                    score=decision.score,
                    threshold=decision.threshold,
                    operating_point=decision.operating_point,
                    subject=find_subject(offer.token),
                    metadata={} if not offer.metadata else fields.select(offer.metadata),
                    thumbnail=self._make_thumbnail(offer),
                )
            )
        return queries

    def _make_thumbnail(self, offer: _Offer) -> bytes | None:
        encoder, side = offer.model.encoder, self._settings.thumbnails
        if offer.input is None or encoder is None or side is None:
            return None
        try:
            return make_thumbnail(encoder.preprocessing, offer.input, side, encoder.limits)
        except RefusedInput:
            return None


def _compute_unit_rows(offers: Sequence[_Offer]) -> list[UnitVectors | None]:
    """The unit vector of each query, of several vectors their mean; None where these cancel out."""
    dimension = offers[0].model.gallery.dim
    rows = [np.frombuffer(offer.vectors, dtype=np.float32).reshape(-1, dimension) for offer in offers]
    means = np.stack([row[0] if len(row) == 1 else row.mean(axis=0) for row in rows])
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    unit = means / np.maximum(lengths, SHORTEST)
    return [
        row if length > SHORTEST else None for row, length in zip(unit, lengths[:, 0].tolist(), strict=True)
    ]


def describe_kept_queries(settings: ServiceSettings) -> KeptQueries:
    """What a service keeps of queries, in words."""
    keep = settings.keep_unknowns
    which = {"unknown": "Queries of matches that are answered unknown", "all": "All queries of matches"}
    if keep == "off":
        stores = "Nothing of a query is kept (LIMEN_KEEP_UNKNOWNS is off)."
    elif settings.data is None:
        keep, stores = "off", "Nothing of a query is kept: there is no data folder (--data DIR)."
    else:
        picture = (
            ""
            if settings.thumbnails is None
            else f", and a picture of at most {settings.thumbnails} pixels or the beginning of the text"
        )
        stores = (
            f"{which[keep]} are kept in the data folder: vector, time, best candidate, score, threshold and "
            f"the request's metadata{picture}. After {settings.unknowns_days} days, and beyond "
            f"{settings.unknowns_max:,}, the oldest are erased. A query by the id of an item, and one with "
            "keep false, is not kept."
        )
    return KeptQueries(keep=keep, stores=stores, days=settings.unknowns_days, most=settings.unknowns_max)
