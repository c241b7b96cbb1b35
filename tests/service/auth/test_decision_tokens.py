"""Decision ids carry what was decided, and cannot be forged."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.auth.decision_tokens import DecisionSigner, SignedDecision
from service.errors.problems import ServiceProblem

DECISION = SignedDecision("match", 1.5, "ab" * 32, "op-1", "unknown", 0.25, None, "item-7")


def test_a_decision_id_carries_the_decision() -> None:
    signer = DecisionSigner.open(None)
    token = signer.sign(DECISION)
    assert signer.read(token) == DECISION
    assert len(token) < 260


def test_a_decision_id_cannot_be_made_up(tmp_path: Path) -> None:
    signer = DecisionSigner.open(tmp_path)
    token = signer.sign(DECISION)
    changed = [token[:-6] + "AAAAAA", "A" + token[1:], token[:20], "", "ü", "=" * 9, token + "AAAA"]
    for bad in changed:
        with pytest.raises(ServiceProblem, match="not signed"):
            signer.read(bad)
    with pytest.raises(ServiceProblem, match="not signed"):
        DecisionSigner.open(None).read(token)
    assert DecisionSigner.open(tmp_path).read(token) == DECISION, "the data folder keeps the key"
    assert (tmp_path / "decision.key").stat().st_mode & 0o777 == 0o600
