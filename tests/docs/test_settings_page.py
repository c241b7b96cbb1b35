"""The page lists every setting, with its default and its meaning, as the code has it."""

from __future__ import annotations

from api_schemas.http.decisions import Limits
from scripts.settings import END, START, TARGET, build_table, replace_table
from service.settings import ALL_FIELDS


def test_the_table_of_settings_is_current() -> None:
    page = TARGET.read_text(encoding="utf-8")
    assert page.count(START) == page.count(END) == 1
    assert replace_table(page) == page, "run: python scripts/settings.py"


def test_every_setting_is_described_and_every_limit_shown() -> None:
    table = build_table()
    for name, field in ALL_FIELDS.items():
        assert field.description, name
        assert f"| `LIMEN_{name.upper()}` |" in table
        if name.startswith(("max_", "min_")):
            assert name in Limits.model_fields, f"/v1/info does not show {name}"
