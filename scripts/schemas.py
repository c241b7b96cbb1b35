"""Write the JSON schema of every document to docs/schemas; run it after a deliberate change."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel

from api_schemas.config import Config
from api_schemas.manifest import Manifest
from api_schemas.operating_point import OperatingPoint
from api_schemas.preprocessing import PreprocessingDocument
from api_schemas.report import Report
from api_schemas.wrap_config import WrapConfig

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "schemas"
DOCUMENTS: dict[str, type[BaseModel]] = {
    "config": Config,
    "manifest": Manifest,
    "operating_point": OperatingPoint,
    "preprocessing": PreprocessingDocument,
    "report": Report,
    "wrap": WrapConfig,
}


def render_schema(document: type[BaseModel]) -> str:
    """The JSON schema of a document as it is published."""
    return json.dumps(document.model_json_schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, document in DOCUMENTS.items():
        (FOLDER / f"{name}.schema.json").write_text(render_schema(document))
        print(f"wrote {FOLDER.name}/{name}.schema.json")
