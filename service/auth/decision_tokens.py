"""Decision ids: signed tokens that carry what feedback needs, so that nothing is stored per decision."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import orjson

from common.atomic_files import write_atomically
from service.errors.problems import INVALID_INPUT, ServiceProblem

KEY_FILE = "decision.key"
_SIGNATURE_BYTES = 16
# longer item ids are left out of the token, so that its size is bounded
_LONGEST_ID = 128


@dataclass(frozen=True)
class SignedDecision:
    """The content of a token: what was decided, when, by which point, about which items."""

    endpoint: str
    at: float
    model_hash: str
    operating_point: str
    decision: str
    score: float | None
    a: str | None
    b: str | None


class DecisionSigner:
    """Signs decisions with HMAC-SHA256, and reads and verifies them."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def open(cls, data: Path | None) -> DecisionSigner:
        """With the key of the data folder, created on first use; without a folder a key of this process."""
        if data is None:
            # the workers of one service share the key through their environment
            shared = os.environ.get("LIMEN_DECISION_KEY", "")
            return cls(bytes.fromhex(shared) if shared else secrets.token_bytes(32))
        file = data / KEY_FILE
        if not file.exists():
            write_atomically(file, secrets.token_bytes(32))
            file.chmod(0o600)
        return cls(file.read_bytes())

    def sign(self, decision: SignedDecision) -> str:
        """The decision as a token of about 200 characters."""
        content = orjson.dumps(
            [
                decision.endpoint,
                round(decision.at, 3),
                decision.model_hash,
                decision.operating_point,
                decision.decision,
                decision.score,
                *(_drop_long_id(item_id) for item_id in (decision.a, decision.b)),
            ]
        )
        signature = hmac.digest(self._key, content, "sha256")[:_SIGNATURE_BYTES]
        return base64.urlsafe_b64encode(signature + content).rstrip(b"=").decode()

    def read(self, token: str) -> SignedDecision:
        """The decision of a token; raises ServiceProblem for one that this service did not sign."""
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise _build_unsigned() from None
        signature, content = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
        expected = hmac.digest(self._key, content, "sha256")[:_SIGNATURE_BYTES]
        if not hmac.compare_digest(signature, expected):
            raise _build_unsigned()
        return SignedDecision(*orjson.loads(content))


def _drop_long_id(item_id: str | None) -> str | None:
    return item_id if item_id is not None and len(item_id) <= _LONGEST_ID else None


def _build_unsigned() -> ServiceProblem:
    return ServiceProblem(
        INVALID_INPUT,
        "decision_id was not signed by this service (without --data, ids are valid until the process ends).",
    )
