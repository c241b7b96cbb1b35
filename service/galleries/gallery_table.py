"""Which gallery a request is for: by the beginning of its path, or by its host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.datastructures import State
from starlette.types import Scope

PREFIX = "/v1/galleries/"
# besides what begins with /v1/; pages are reached by the gallery's host
OPEN_PATHS = frozenset({"livez", "readyz", "metrics"})


class GalleryApp:
    """What requests of a gallery have as their app: its state."""

    def __init__(self, state: State) -> None:
        self.state = state


class GalleryTable:
    """Gives each request the app of its gallery, before anything else looks at it.

    ``/v1/galleries/NAME`` is the address of a whole service: what follows is one of its paths, without
    ``/v1`` if one likes.

    Args:
        default: the app of paths without a name.
        named: apps by name.
        hosts: apps by host, in small letters.
    """

    def __init__(
        self, default: Any, named: Mapping[str, GalleryApp], hosts: Mapping[str, GalleryApp]
    ) -> None:
        self._default, self._named = default, named
        self._hosts = {host.encode("latin-1"): app for host, app in hosts.items()}

    def assign(self, scope: Scope) -> None:
        """Set the app of a request, and its path as its gallery has it; an unknown name changes nothing."""
        scope["app"] = self._default
        if self._hosts:
            self._assign_by_host(scope)
        path: str = scope["path"]
        if not path.startswith(PREFIX) or scope["app"] is not self._default:
            return
        name, _, rest = path[len(PREFIX) :].partition("/")
        app = self._default if name == self._default.state.settings.gallery else self._named.get(name)
        raw, address = scope["raw_path"], f"{PREFIX}{name}/".encode()
        if app is None or not rest or not raw.startswith(address):
            return
        scope["app"] = app
        begin = "/" if rest in OPEN_PATHS or rest.startswith("v1/") else "/v1/"
        scope["path"], scope["raw_path"] = begin + rest, begin.encode() + raw[len(address) :]

    def _assign_by_host(self, scope: Scope) -> None:
        for name, value in scope["headers"]:
            if name == b"host":
                app = self._hosts.get(value.partition(b":")[0].lower())
                if app is not None:
                    scope["app"] = app
                return
