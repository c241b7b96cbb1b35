"""Settings that would be unsafe or are misspelt."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from common.errors import ConfigError
from service.auth.api_keys import create_key
from service.settings import ALL_FIELDS, OTHER_VARIABLES, ServiceSettings, check_variables, load_settings
from tests.conftest import ROOT
from tests.service.bundles import ServiceBundle
from tests.service.processes import read_refusal


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


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("LIMEN_MAX_QUERYS", "LIMEN_MAX_QUERIES"),
        ("LIMEN_API_KEY_FILE", "LIMEN_API_KEYS_FILE"),
        ("LIMEN_DEADLNE", "LIMEN_DEADLINE"),
        ("LIMEN_BUNDEL", "LIMEN_BUNDLE"),
        ("limen_log_levl", "LIMEN_LOG_LEVEL"),
    ],
)
def test_a_misspelt_variable_names_the_nearest(misspelt: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"{misspelt}, which is no setting: did you mean {meant}\?"):
        check_variables({"PATH": "/bin", misspelt: "1"})


def test_variables_of_others_are_listed_and_those_of_this_service_are_not() -> None:
    kubernetes = {"LIMEN_SERVICE_HOST": "10.0.0.1", "LIMEN_PORT_8000_TCP_ADDR": "10.0.0.1"}
    own = {f"LIMEN_{name.upper()}": "" for name in ServiceSettings.model_fields} | {"limen_max_k": "3"}
    assert check_variables(kubernetes | own | dict.fromkeys(OTHER_VARIABLES, "1")) == sorted(kubernetes)


def test_every_variable_in_the_code_and_the_pages_is_a_setting() -> None:
    known = {f"LIMEN_{name.upper()}" for name in ALL_FIELDS} | OTHER_VARIABLES
    files = [
        ROOT / "README.md",
        *(ROOT / "docs").glob("*.md"),
        *filter(Path.is_file, (ROOT / "docker").rglob("*")),
    ]
    for room in ("limen", "service", "training", "index", "encoder", "common"):
        files += (ROOT / room).rglob("*.py")
    for file in files:
        named = set(re.findall(r"\bLIMEN_[A-Z][A-Z_]*[A-Z]\b", file.read_text())) - {"LIMEN_SERVICE_HOST"}
        assert named <= known, f"{file} names {sorted(named - known)}"


def test_the_command_refuses_a_misspelt_variable(
    bundle: ServiceBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMEN_MAX_BODY_BYTE", "1000")
    assert "did you mean LIMEN_MAX_BODY_BYTES?" in read_refusal(str(bundle.path), "--port", "0")


def test_an_empty_variable_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMEN_DATA", "")
    monkeypatch.setenv("LIMEN_MAX_K", "")
    loaded = load_settings(bundle=tmp_path)
    assert (loaded.data, loaded.max_k) == (None, 1000)
