"""Settings that would be unsafe or are misspelt."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import ConfigError
from service.auth.api_keys import create_key
from service.settings import load_settings


def test_other_machines_need_keys(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="limen keys create"):
        load_settings(bundle=tmp_path, host="0.0.0.0")
    create_key(tmp_path / "keys.json", "a", "read")
    assert load_settings(bundle=tmp_path, host="0.0.0.0", api_keys_file=tmp_path / "keys.json")
    for host in ("127.0.0.1", "::1", "localhost", "127.0.0.9"):
        assert load_settings(bundle=tmp_path, host=host)


def test_settings_name_the_offending_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_k"):
        load_settings(bundle=tmp_path, max_k=0)
    with pytest.raises(ConfigError, match=r"LIMEN_LOG_LEVEL.*warning"):
        load_settings(bundle=tmp_path, log_level="loud")
    with pytest.raises(ConfigError, match="read-only"):
        load_settings(bundle=tmp_path, workers=2, data=tmp_path)
