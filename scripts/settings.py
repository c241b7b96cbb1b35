"""Write the table of settings into docs/serving.md: python scripts/settings.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from service.settings import ALL_FIELDS, KIB, MIB

TARGET = Path(__file__).resolve().parents[1] / "docs" / "serving.md"
START, END = "<!-- settings: python scripts/settings.py -->\n", "<!-- end of settings -->\n"


def build_table() -> str:
    """One row per setting: its variable, its default and what it is."""
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in ALL_FIELDS.items():
        default = "cores less one" if name == "threads" else _write_default(name, field.get_default())
        if field.is_required():
            default = "the argument of `limen serve`"
        rows.append(f"| `LIMEN_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows) + "\n"


def replace_table(page: str) -> str:
    """The page with the current table."""
    before, _, rest = page.partition(START)
    after = rest.partition(END)[2]
    return f"{before}{START}\n{build_table()}\n{END}{after}"


def _write_default(name: str, value: Any) -> str:
    if value is None:
        return "none"
    if name.endswith("_bytes") or name == "min_body_rate":
        return f"{value // MIB} MiB" if value % MIB == 0 else f"{value // KIB} KiB"
    if isinstance(value, int):
        return f"{value:,}" if name != "port" else str(value)
    if isinstance(value, float):
        return f"{value:g}" if name.endswith("_share") else f"{value:g} s"
    return str(value)


if __name__ == "__main__":
    TARGET.write_text(replace_table(TARGET.read_text(encoding="utf-8")), encoding="utf-8")
    print(TARGET)
