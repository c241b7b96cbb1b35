"""Workers that share series, readings and alerts: all count, one leads, another when that has ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from api_schemas.http.monitoring import Reading
from service.monitoring import worker_share
from service.monitoring.worker_share import WorkerShare, make_share


def read(signal: str, value: float | None, lower: float | None = None) -> dict[str, Reading]:
    return {signal: Reading(signal=signal, value=value, lower=lower, detail="")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_share(tmp_path)
    return tmp_path


def test_one_leads_until_it_ends(folder: Path) -> None:
    first, second = WorkerShare(folder), WorkerShare(folder)
    assert [first.lead(), second.lead(), first.lead(), second.lead()] == [True, False, True, False]
    first.close()
    assert second.lead()
    second.close()


def test_the_worst_of_the_latest_readings_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    share = WorkerShare(folder)

    def tell(worker: int, own: dict[str, Reading], at: float = 1_000.0) -> dict[str, Reading]:
        monkeypatch.setattr(worker_share.os, "getpid", lambda: worker)
        monkeypatch.setattr(worker_share, "time", lambda: at)
        return share.merge_readings(own)

    assert tell(1, read("drift", 0.9, 0.5)) == read("drift", 0.9, 0.5)
    assert tell(2, read("drift", 0.7, 0.6)) == read("drift", 0.7, 0.6), "its bound is the higher one"
    assert tell(3, read("drift", None)) == read("drift", 0.7, 0.6)
    assert tell(3, read("other", 1.0)) == read("other", 1.0)
    assert tell(1, read("drift", 0.5, 0.4), at=1_500.0) == read("drift", 0.5, 0.4), "the others are gone"
    (folder / "readings-9.json").write_text("{")
    assert tell(1, read("drift", 0.5, 0.4)) == read("drift", 0.7, 0.6)
    share.close()
