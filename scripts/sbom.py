"""Write a software bill of materials (CycloneDX 1.6, JSON) of what is installed: python -m scripts.sbom FILE

It lists every Python package of the environment that runs this, with version, licence, package URL and what
it depends on. The image is built with it (docker/Dockerfile); it needs nothing but the standard library.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from uuid import uuid4

PRODUCT = "limen"


def build_document(installed: Iterable[Distribution]) -> dict[str, Any]:
    """The document about these packages; the product itself is its subject."""
    components: dict[str, dict[str, Any]] = {}
    needed: dict[str, set[str]] = {}
    for package in installed:
        component = describe(package)
        name = normalise(component["name"])
        components[name] = component
        needed[name] = find_needed(package) - {name}
    refs = {name: component["bom-ref"] for name, component in components.items()}
    subject = components.pop(PRODUCT, {"bom-ref": PRODUCT, "name": PRODUCT})
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid4()}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
            "component": subject | {"type": "application"},
        },
        "components": [components[name] for name in sorted(components)],
        "dependencies": [
            {"ref": ref, "dependsOn": sorted(refs[other] for other in needed[name] if other in refs)}
            for name, ref in sorted(refs.items())
        ],
    }


def describe(package: Distribution) -> dict[str, Any]:
    """A package as a component; it is named by its package URL (https://github.com/package-url/purl-spec)."""
    metadata = package.metadata
    ref = f"pkg:pypi/{normalise(metadata['Name'])}@{metadata['Version']}"
    described: dict[str, Any] = {
        "type": "library",
        "bom-ref": ref,
        "name": metadata["Name"],
        "version": metadata["Version"],
        "purl": ref,
    }
    if metadata.get("Summary"):
        described["description"] = metadata["Summary"]
    # one may be an expression, the other a name, or a whole text
    expression, name = metadata.get("License-Expression"), (metadata.get("License") or "").strip()
    if expression:
        described["licenses"] = [{"expression": expression}]
    elif name and "\n" not in name and len(name) < 100:
        described["licenses"] = [{"license": {"name": name}}]
    return described


def find_needed(package: Distribution) -> set[str]:
    """The packages that a package says it needs, those of its extras among them."""
    return {normalise(re.split(r"[\s;\[<>=!~(]", need, maxsplit=1)[0]) for need in package.requires or ()}


def normalise(name: str) -> str:
    """The name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    """Write the file that the command names, or standard output."""
    text = json.dumps(build_document(distributions()), indent=1, ensure_ascii=False) + "\n"
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
