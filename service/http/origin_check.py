"""Whose requests a service without keys answers: those that name this machine, from its own pages.

A page of another site can make a browser send requests to loopback, and by DNS rebinding even read the
answers; the headers ``Host`` and ``Origin``, which no page can set, tell them apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from service.errors.problems import FOREIGN_ORIGIN, ServiceProblem
from service.settings import is_loopback


def check_origin(headers: Mapping[bytes, bytes]) -> None:
    """Raises the problem ``foreign-origin`` (403) for a request to another name, or from another site."""
    host = headers.get(b"host", b"").decode("latin-1")
    if not _names_this_machine(host):
        raise _build_foreign(f"it is addressed to '{host[:100]}'")
    origin = headers.get(b"origin", b"").decode("latin-1")
    if origin and origin.lower() not in {f"http://{host.lower()}", f"https://{host.lower()}"}:
        raise _build_foreign(f"a page of {origin[:100]} sends it")


@lru_cache(maxsize=64)
def _names_this_machine(host: str) -> bool:
    """Whether a ``Host`` is a name of loopback, or empty, which browsers never send."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0].lower()
    # names below localhost are loopback, too: no name server answers for them (RFC 6761, section 6.3)
    return not host or is_loopback(name) or name.endswith(".localhost")


def _build_foreign(why: str) -> ServiceProblem:
    return ServiceProblem(
        FOREIGN_ORIGIN,
        f"Without keys the service answers requests to localhost from its own pages alone; {why}. "
        "Give it keys (limen keys create, LIMEN_API_KEYS_FILE) to be reached by other names.",
    )
