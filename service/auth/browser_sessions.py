"""Sessions of browsers: a signed cookie that names the key it was opened with, and carries no secret.

The cookie is ``signature | expiry | fingerprint of the key | nonce``, signed with a key derived from the one
that signs decisions, so that the workers of a service accept each other's. Nothing is stored: a session ends
at its expiry, and when its key is revoked.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from time import time

_SIGNATURE_BYTES, _FINGERPRINT_BYTES, _NONCE_BYTES = 32, 16, 12
_HEAD = struct.Struct(">Q")
_CONTENT_BYTES = _HEAD.size + _FINGERPRINT_BYTES + _NONCE_BYTES


@dataclass(frozen=True)
class BrowserSession:
    """A valid session: the SHA-256 of its key's secret, and the token that its pages send with changes."""

    key_sha256: str
    csrf_token: str


class BrowserSessions:
    """Issues and reads the cookies.

    Args:
        key: what signs them.
        seconds: how long a session lasts.
    """

    def __init__(self, key: bytes, seconds: float) -> None:
        self._key = key
        self.seconds = int(seconds)
        # browsers send cookies of one port of a host to all others: each service has a name of its own
        self.cookie_name = f"limen_session_{hmac.digest(self._key, b'name', 'sha256').hex()[:8]}"

    def issue(self, key_sha256: str) -> str:
        """The cookie of a new session."""
        content = b"".join(
            (
                _HEAD.pack(int(time()) + self.seconds),
                self._compute_fingerprint(key_sha256),
                secrets.token_bytes(_NONCE_BYTES),
            )
        )
        signed = hmac.digest(self._key, content, "sha256") + content
        return base64.urlsafe_b64encode(signed).rstrip(b"=").decode()

    def read(self, cookie: str, keys: Iterable[str]) -> BrowserSession | None:
        """The session of a cookie, or None where it is forged or over, or its key is not among ``keys``."""
        try:
            raw = base64.b64decode(cookie + "=" * (-len(cookie) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        signature, content = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, hmac.digest(self._key, content, "sha256")):
            return None
        if len(content) != _CONTENT_BYTES or _HEAD.unpack_from(content)[0] < time():
            return None
        named = content[_HEAD.size : _HEAD.size + _FINGERPRINT_BYTES]
        matching = [
            sha256 for sha256 in keys if hmac.compare_digest(named, self._compute_fingerprint(sha256))
        ]
        if not matching:
            return None
        return BrowserSession(matching[-1], hmac.digest(self._key, b"csrf" + raw, "sha256").hex())

    def _compute_fingerprint(self, key_sha256: str) -> bytes:
        return hmac.digest(self._key, b"key" + key_sha256.encode(), "sha256")[:_FINGERPRINT_BYTES]
