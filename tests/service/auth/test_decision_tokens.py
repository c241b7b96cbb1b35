"""Decision ids carry what was decided, and cannot be forged."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import ConfigError
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


@pytest.mark.parametrize("size", [0, 1, 31, 33])
def test_a_key_of_another_length_is_refused(tmp_path: Path, size: int) -> None:
    (tmp_path / "decision.key").write_bytes(b"x" * size)
    with pytest.raises(ConfigError, match=rf"decision\.key must hold 32 random bytes, it holds {size}"):
        DecisionSigner.open(tmp_path)


def test_a_key_of_an_earlier_version_is_closed_to_others(tmp_path: Path) -> None:
    DecisionSigner.open(tmp_path)
    (tmp_path / "decision.key").chmod(0o644)
    DecisionSigner.open(tmp_path)
    assert (tmp_path / "decision.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("shared", ["zz", "00", "0" * 62])
def test_a_shared_key_of_another_form_is_refused(monkeypatch: pytest.MonkeyPatch, shared: str) -> None:
    monkeypatch.setenv("LIMEN_DECISION_KEY", shared)
    with pytest.raises(ConfigError, match="64 hexadecimal digits"):
        DecisionSigner.open(None)
