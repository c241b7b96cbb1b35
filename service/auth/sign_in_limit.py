"""How often wrong keys may be tried at the form: so many a minute from one address."""

from __future__ import annotations

from collections import OrderedDict, deque
from time import monotonic

from service.errors.problems import OVERLOADED, ServiceProblem

WINDOW = 60.0
MOST_ADDRESSES = 4096


class SignInLimit:
    """Counts the wrong keys of the last minute by address; the addresses that tried last are remembered."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def check(self, address: str) -> None:
        """Raises the problem ``overloaded`` for an address that has tried too many wrong keys."""
        failures = self._failures.get(address)
        while failures and failures[0] < monotonic() - WINDOW:
            failures.popleft()
        if failures and len(failures) >= self._most:
            wait = max(1, round(failures[0] + WINDOW - monotonic()))
            raise ServiceProblem(
                OVERLOADED,
                f"{self._most} wrong keys came from this address within a minute (LIMEN_MAX_WRONG_KEYS): try "
                f"again in {wait} s.",
                headers={"Retry-After": str(wait)},
            )

    def count_failure(self, address: str) -> None:
        """Count a wrong key."""
        self._failures.setdefault(address, deque(maxlen=self._most)).append(monotonic())
        self._failures.move_to_end(address)
        if len(self._failures) > MOST_ADDRESSES:
            self._failures.popitem(last=False)
