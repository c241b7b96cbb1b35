"""Write docs/openapi.json: python scripts/openapi.py"""

from __future__ import annotations

import json
from pathlib import Path

from service.app import create_app
from service.settings import load_settings

TARGET = Path(__file__).resolve().parents[1] / "docs" / "openapi.json"


def build_text() -> str:
    """The OpenAPI document of the current code."""
    app = create_app(load_settings(bundle=Path("bundle")))
    return json.dumps(app.openapi(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(build_text(), encoding="utf-8")
    print(TARGET)
