"""Who looks at a page, and what their key allows there."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from common.errors import LimenError
from service.auth.api_keys import KeyRing, Scope, find_key, includes_scope


@dataclass(frozen=True)
class Viewer:
    """Who looks at a page.

    ``csrf_token`` goes with every change that the page asks for; it is empty where nobody signs in.
    """

    name: str
    scope: Scope
    csrf_token: str

    def allows(self, scope: Scope) -> bool:
        """Whether the viewer may do what needs this scope."""
        return includes_scope(self.scope, scope)


def find_viewer(request: Request) -> Viewer | None:
    """Who sent the request; None where keys are configured and it has none."""
    keyring: KeyRing = request.app.state.keyring
    if keyring.open_to_all:
        return Viewer("anyone", "admin", "")
    try:
        key, session = find_key(request)
    except LimenError:
        return None
    if key is None:
        return None
    return Viewer(key.name, key.scope, "" if session is None else session.csrf_token)
