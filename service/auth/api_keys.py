"""API keys with the scopes read, write and admin: stored as hashes, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from fastapi import Depends, Request
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from api_schemas.base import SCHEMA_VERSION, Schema
from common.errors import InputError, LimenError
from common.file_locks import FileLock
from common.label_spelling import is_blank
from service.auth.browser_sessions import BrowserSession, BrowserSessions
from service.auth.key_limits import KeyLimits
from service.errors.problems import (
    CSRF,
    FORBIDDEN,
    FOREIGN_ORIGIN,
    UNAUTHENTICATED,
    KeysUnreadable,
    ServiceProblem,
)
from service.telemetry.logs import LOGGER

Scope = Literal["read", "write", "admin"]
_INCLUDED: dict[Scope, frozenset[Scope]] = {
    "read": frozenset({"read"}),
    "write": frozenset({"read", "write"}),
    "admin": frozenset({"read", "write", "admin"}),
}
PREFIX = "limen_"
LONGEST_NAME = 200
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
CSRF_HEADER = "x-csrf-token"
MOUNTS = Path("/proc/self/mountinfo")


class ApiKey(Schema):
    """A stored key: name, scope, SHA-256 and limits, never the secret."""

    name: str = Field(min_length=1)
    scope: Scope
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    created_at: datetime
    limits: KeyLimits | None = None

    @model_serializer(mode="wrap")
    def _leave_out(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without limits a key is written as before there were any, so that an older version reads it."""
        document: dict[str, Any] = write(self)
        return {name: value for name, value in document.items() if value is not None}


class KeyFile(Schema):
    """``keys.json``. Several keys may have one name, so that a key can be rotated."""

    schema_version: Literal[1] = SCHEMA_VERSION
    keys: list[ApiKey]


def make_key(name: str, scope: Scope, limits: KeyLimits | None = None) -> tuple[str, ApiKey]:
    """A new secret, and what is kept of it; raises InputError for a name that is no line of text."""
    if is_blank(name) or not name.isprintable() or len(name) > LONGEST_NAME:
        raise InputError(
            f"A key's name has 1 to {LONGEST_NAME} visible characters, found {name[:60]!a}: give it another."
        )
    secret = PREFIX + secrets.token_urlsafe(32)
    sha256, now = _hash_secret(secret), datetime.now(UTC)
    return secret, ApiKey(name=name, scope=scope, sha256=sha256, created_at=now, limits=limits)


def create_key(file: Path, name: str, scope: Scope, limits: KeyLimits | None = None) -> str:
    """Add a key to the file (mode 600) and return its secret, which cannot be read back later.

    Keys that are created or revoked at the same time, by any process, are all kept or removed.
    """
    secret, added = make_key(name, scope, limits)
    if not file.parent.is_dir():
        raise InputError(f"{file} cannot be written: there is no folder {file.parent}; make it first.")
    with FileLock(file, wait=True):
        known = KeyFile.load(file).keys if file.stat().st_size else []
        KeyFile(keys=[*known, added]).save(file, private=True)
    return secret


def revoke_keys(file: Path, name: str) -> int:
    """Remove all keys of a name and return how many; raises InputError if there are none."""
    KeyFile.load(file)
    with FileLock(file, wait=True):
        known = KeyFile.load(file).keys
        kept = [key for key in known if key.name != name]
        if len(kept) == len(known):
            raise InputError(
                f"{file} holds no key named '{name}'; it holds {sorted({key.name for key in known})}."
            )
        KeyFile(keys=kept).save(file, private=True)
    return len(known) - len(kept)


class KeyRing:
    """The keys of a file; the file is read again when it changes, so that rotation needs no restart.

    A file that is gone or replaced elsewhere revokes every key; of one that cannot be read no key is
    accepted until it can.
    """

    def __init__(self, file: Path | None) -> None:
        """Raises InputError for a file that cannot be read."""
        self._file = file
        self._stamp: tuple[int, ...] = ()
        self._keys: list[ApiKey] = []
        self._problem: str | None = None
        # of the database that several processes share; None where none were ever made there
        self.shared: list[ApiKey] | None = None
        if file is None:
            return
        self._stamp = _read_stamp(file)
        self._keys = KeyFile.load(file).keys
        if _is_mounted_alone(file):
            LOGGER.warning(
                f"{file} is mounted by itself: keys that are created or revoked outside go into a new file, "
                "which this process will not see. Mount the folder that it is in instead."
            )

    @property
    def open_to_all(self) -> bool:
        """Whether no keys are configured; the service then listens on loopback only."""
        return self._file is None and self.shared is None

    def find(self, secret: str) -> ApiKey | None:
        """The key of this secret; every stored hash is compared, whether one matched or not.

        Raises KeysUnreadable while the file cannot be read.
        """
        given = _hash_secret(secret)
        matching: ApiKey | None = None
        for key in self.read_keys():
            if hmac.compare_digest(key.sha256, given):
                matching = key
        return matching

    def read_keys(self) -> list[ApiKey]:
        """The keys that are accepted now; raises KeysUnreadable while the file cannot be read."""
        if self._file is not None:
            self._refresh()
        if self._problem is not None:
            raise KeysUnreadable(self._problem)
        return [*self._keys, *(self.shared or ())]

    def _refresh(self) -> None:
        assert self._file is not None
        stamp = _read_stamp(self._file)
        if stamp == self._stamp:
            return
        self._stamp, self._keys, self._problem = stamp, [], None
        if not stamp:
            LOGGER.warning(f"{self._file} is gone, which revokes every key.")
        elif stamp[0] == 0:
            self._problem = (
                f"{self._file.name} was replaced outside of what this service sees, as when it is mounted by "
                "itself: mount the folder that it is in, and restart."
            )
            LOGGER.error(self._problem)
        else:
            try:
                self._keys = KeyFile.load(self._file).keys
            except InputError as error:
                LOGGER.error(f"No key is accepted: {error}")
                self._problem = (
                    f"{self._file.name}, the file of the keys, cannot be read, so no key is accepted; the "
                    "log says why."
                )


def _read_stamp(file: Path) -> tuple[int, ...]:
    """What changes with the file: names, times, size and inode; empty if it is gone.

    It has no name any more, 0, where it is mounted by itself and was replaced outside.
    """
    try:
        state = file.stat()
    except OSError:
        return ()
    return (state.st_nlink, state.st_mtime_ns, state.st_ctime_ns, state.st_size, state.st_ino, state.st_dev)


def _is_mounted_alone(file: Path) -> bool:
    """Whether the file itself was mounted, as by ``docker run -v keys.json:...``, not a folder above it."""
    try:
        mounts = MOUNTS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    # blanks in paths are escaped
    points = {line.split()[4].replace(r"\040", " ") for line in mounts.splitlines() if line}
    return str(file.resolve()) in points


def includes_scope(given: Scope, needed: Scope) -> bool:
    """Whether a key of the scope ``given`` may do what needs the other."""
    return needed in _INCLUDED[given]


def find_key(request: Request) -> tuple[ApiKey | None, BrowserSession | None]:
    """The key of a request: of its bearer token, or else of its browser's session, which is then given too.

    Raises KeysUnreadable while the file of the keys cannot be read.
    """
    keyring: KeyRing = request.app.state.keyring
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme:
        return (keyring.find(secret.strip()) if scheme.lower() == "bearer" else None), None
    sessions: BrowserSessions = request.app.state.sessions
    cookie = request.cookies.get(sessions.cookie_name) if "cookie" in request.headers else None
    if not cookie:
        return None, None
    keys = {key.sha256: key for key in keyring.read_keys()}
    session = sessions.read(cookie, keys)
    return (None, None) if session is None else (keys[session.key_sha256], session)


def name_client(request: Request, key: ApiKey | None) -> str:
    """Whose turn a request to a service with keys takes: its key's, or its address's where it has none."""
    if key is not None:
        return f"key {key.name}"
    return "" if request.client is None else request.client.host


def find_key_if_any(request: Request) -> ApiKey | None:
    """The key of a request; None also while none can be read, which the request itself is answered with."""
    try:
        return find_key(request)[0]
    except LimenError:
        return None


def check_key(request: Request, scope: Scope) -> None:
    """Raises a problem unless the request's key has the scope."""
    keyring: KeyRing = request.app.state.keyring
    if keyring.open_to_all:
        request.state.actor = "anyone"
        return
    key, session = find_key(request)
    if key is None:
        raise ServiceProblem(
            UNAUTHENTICATED,
            "A valid key is needed: send Authorization: Bearer <key>, or sign in at /dashboard/sign-in.",
            headers={"WWW-Authenticate": "Bearer"},
        )
    request.state.actor, request.state.key = key.name, key
    if session is not None and request.method not in SAFE_METHODS:
        check_own_page(request, session, request.headers.get(CSRF_HEADER, ""))
    if not includes_scope(key.scope, scope):
        raise ServiceProblem(
            FORBIDDEN, f"The key '{key.name}' has the scope {key.scope}; this needs {scope}."
        )


def check_own_page(request: Request, session: BrowserSession, token: str) -> None:
    """Raises a problem unless a change comes from a page of this service, which knows the session's token."""
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise ServiceProblem(FOREIGN_ORIGIN, "A page of another site sends it with the session of this one.")
    if not hmac.compare_digest(token.encode(), session.csrf_token.encode()):
        raise ServiceProblem(
            CSRF,
            "A change that comes with a browser's session needs the header X-CSRF-Token of its page: load "
            "the page again, or send Authorization: Bearer <key> instead.",
        )


def require_scope(scope: Scope) -> Callable[[Request], Awaitable[None]]:
    """A dependency that raises a problem unless the request's key has the scope."""

    async def check(request: Request) -> None:
        check_key(request, scope)

    return check


NEEDS_READ = [Depends(require_scope("read"))]
NEEDS_WRITE = [Depends(require_scope("write"))]
NEEDS_ADMIN = [Depends(require_scope("admin"))]


def _hash_secret(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
