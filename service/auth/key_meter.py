"""Counts what each API key asks for, and refuses what is beyond its limits."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic

from fastapi import Request

from service.auth.api_keys import ApiKey
from service.errors.problems import LIMIT_EXCEEDED, RATE_LIMITED, ServiceProblem

DAY = 86_400.0
MOST_BUCKETS = 10_000  # the oldest is forgotten beyond: keys that were revoked leave theirs
ITEM_WRITES = frozenset({("PUT", "/v1/items"), ("POST", "/v1/unknowns/enroll")})


class TokenBucket:
    """Tokens that come at a steady rate and are spent; ``most`` of them are there after a pause."""

    def __init__(self, rate: float, most: float, now: float) -> None:
        self._rate, self.most = rate, most
        self._tokens, self._at = most, now

    def count_wait(self, wanted: float, now: float) -> float:
        """Seconds until so many tokens are there; 0 if they are."""
        self._tokens = min(self.most, self._tokens + self._rate * (now - self._at))
        self._at = now
        return max(0.0, (wanted - self._tokens) / self._rate)

    def spend(self, tokens: float) -> None:
        """Spend tokens, also such as have still to come."""
        self._tokens -= tokens


class KeyMeter:
    """A token bucket (https://en.wikipedia.org/wiki/Token_bucket) for each limit of each key.

    Of this process, and used on the event loop alone; ``clock`` gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, float, float], TokenBucket] = {}

    def count_request(self, key: ApiKey, method: str, path: str) -> None:
        """Count a request, of which no more than method and path need be known.

        Raises the problem ``rate-limited`` (429) beyond what the key may ask for: also for a write of items
        where it may write none now.
        """
        if key.limits is None:
            return
        if (method, path) in ITEM_WRITES:
            self.check_items(key, 1)
        rate = key.limits.requests_per_second
        if rate is not None:
            bucket = self._find(key, rate, key.limits.burst or max(1, math.ceil(rate)))
            self._check(bucket, 1, f"The key '{key.name}' may send {rate:g} requests a second")
            bucket.spend(1)

    def check_items(self, key: ApiKey, items: int) -> None:
        """Raises a problem unless the key may write so many items now."""
        bucket = self._find_items(key)
        if bucket is None:
            return
        what = f"The key '{key.name}' may write {bucket.most} items a day"
        if items > bucket.most:
            raise ServiceProblem(LIMIT_EXCEEDED, f"{what}, and this would be {items}: send fewer.")
        self._check(bucket, items, what)

    def spend_items(self, key: ApiKey, items: int) -> None:
        """Count items that are written."""
        bucket = self._find_items(key)
        if bucket is not None:
            bucket.spend(items)

    def _find_items(self, key: ApiKey) -> TokenBucket | None:
        most = None if key.limits is None else key.limits.items_per_day
        return None if most is None else self._find(key, most / DAY, most)

    def _find(self, key: ApiKey, rate: float, most: int) -> TokenBucket:
        # a limit that is changed is another bucket, and a full one
        name = (key.sha256, rate, most)
        bucket = self._buckets.get(name)
        if bucket is None:
            while len(self._buckets) >= MOST_BUCKETS:
                del self._buckets[next(iter(self._buckets))]
            bucket = self._buckets[name] = TokenBucket(rate, most, self._clock())
        return bucket

    def _check(self, bucket: TokenBucket, wanted: int, what: str) -> None:
        wait = math.ceil(bucket.count_wait(wanted, self._clock()))
        if wait > 0:
            raise ServiceProblem(
                RATE_LIMITED,
                f"{what}: try again in {wait} s, or ask whoever gave you the key for more.",
                headers={"Retry-After": str(wait)},
            )


def check_items(request: Request, items: int) -> None:
    """Raises a problem unless the key of a request may write so many items now."""
    key: ApiKey | None = getattr(request.state, "key", None)
    if key is not None:
        meter: KeyMeter = request.app.state.meter
        meter.check_items(key, items)


def spend_items(request: Request, items: int) -> None:
    """Count items that a request has written for its key."""
    key: ApiKey | None = getattr(request.state, "key", None)
    if key is not None:
        meter: KeyMeter = request.app.state.meter
        meter.spend_items(key, items)
