"""Decision ids: signed tokens that carry what feedback needs, so that nothing is stored per decision."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import NamedTuple

import orjson

from common.atomic_files import write_atomically
from common.errors import ConfigError
from common.private_files import close_to_others
from index.store.shared.records import SharedRecords
from service.errors.problems import INVALID_INPUT, ServiceProblem

KEY_FILE = "decision.key"
KEY_BYTES = 32
_SIGNATURE_BYTES = 16
# longer item ids are left out of the token, so that its size is bounded
_LONGEST_ID = 128


class SignedDecision(NamedTuple):
    """The content of a token: what was decided, when, by which point, about which items.

    ``fingerprint`` is that of a query which was no item.
    """

    endpoint: str
    at: float
    model_hash: str
    operating_point: str
    decision: str
    score: float | None
    a: str | None
    b: str | None
    fingerprint: str | None = None

    @property
    def subject(self) -> str:
        """What one verdict is given about; it says nothing about the items."""
        return hashlib.sha256(_write_content(self)).hexdigest()


class DecisionSigner:
    """Signs decisions with HMAC-SHA256, and reads and verifies them."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._keyed = hmac.new(key, digestmod="sha256")

    @classmethod
    def open(
        cls, data: Path | None, shared: SharedRecords | None = None, gallery: str = "default"
    ) -> DecisionSigner:
        """With the key of the data folder, created on first use; without a folder a key of this process,
        and of ``gallery``.

        With several processes of one service all have the key of the first.
        """
        if data is None:
            # the workers of one service share the key through their environment
            given = os.environ.get("LIMEN_DECISION_KEY", "")
            signer = cls(_read_shared(given) if given else secrets.token_bytes(KEY_BYTES))
            return signer if gallery == "default" else cls(signer.derive_key(f"gallery {gallery}"))
        file = data / KEY_FILE
        if not file.exists():
            write_atomically(file, secrets.token_bytes(KEY_BYTES), private=True)
        close_to_others(file)
        key = file.read_bytes()
        if len(key) != KEY_BYTES:
            raise ConfigError(
                f"{file} must hold {KEY_BYTES} random bytes, it holds {len(key)}: restore it from a copy, or "
                "remove it, and a new one is made; feedback about decisions made before is then refused."
            )
        if shared is not None:
            key = bytes.fromhex(shared.read_or_add("decision_key", key.hex()))
        return cls(key)

    def derive_key(self, purpose: str) -> bytes:
        """A key for another purpose, which says nothing about the one that signs."""
        return hmac.digest(self._key, purpose.encode(), "sha256")

    def sign(self, decision: SignedDecision) -> str:
        """The decision as a token of about 200 characters."""
        content = _write_content(decision)
        signature = self._compute_signature(content)
        return base64.urlsafe_b64encode(signature + content).rstrip(b"=").decode()

    def read(self, token: str) -> SignedDecision:
        """The decision of a token; raises ServiceProblem for one that this service did not sign."""
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise _build_unsigned() from None
        signature, content = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._compute_signature(content)):
            raise _build_unsigned()
        return SignedDecision(*orjson.loads(content))

    def _compute_signature(self, content: bytes) -> bytes:
        keyed = self._keyed.copy()
        keyed.update(content)
        return keyed.digest()[:_SIGNATURE_BYTES]


def find_subject(token: str) -> str:
    """What one verdict is given about, of a token that this service has just signed."""
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    return hashlib.sha256(raw[_SIGNATURE_BYTES:]).hexdigest()


def _read_shared(text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError(
            f"LIMEN_DECISION_KEY must be {2 * KEY_BYTES} hexadecimal digits: leave it out, the service sets "
            "it for its workers."
        )
    return key


def _write_content(decision: SignedDecision) -> bytes:
    return orjson.dumps(
        [
            decision.endpoint,
            round(decision.at, 6),  # in microseconds no two are alike
            decision.model_hash,
            decision.operating_point,
            decision.decision,
            decision.score,
            *(_drop_long_id(item_id) for item_id in (decision.a, decision.b)),
            *([] if decision.fingerprint is None else [decision.fingerprint]),
        ]
    )


def _drop_long_id(item_id: str | None) -> str | None:
    return item_id if item_id is not None and len(item_id) <= _LONGEST_ID else None


def _build_unsigned() -> ServiceProblem:
    return ServiceProblem(
        INVALID_INPUT,
        "decision_id was not signed by this service (without --data, ids are valid until the process ends).",
    )
