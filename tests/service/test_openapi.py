"""The published document is the service's, and the service keeps to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from scripts.openapi import TARGET, current
from service.security import create_key

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def test_the_published_document_is_current() -> None:
    assert TARGET.read_text() == current(), "run: python scripts/openapi.py"


def test_every_operation_is_described(address: str) -> None:
    document = httpx.get(f"{address}/openapi.json").json()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"], path
            assert operation["description"], path
            for content in operation.get("requestBody", {}).get("content", {}).values():
                assert "examples" in content or content["schema"]["format"] == "binary", path


def test_every_example_is_taken(address: str) -> None:
    """An example answers, or is refused for what it refers to, never for its form."""
    document = httpx.get(f"{address}/openapi.json").json()
    for path, operations in document["paths"].items():
        content = operations.get("post", {}).get("requestBody", {}).get("content", {})
        for example in content.get("application/json", {}).get("examples", {}).values():
            response = httpx.post(address + path.replace("{version}", "x"), json=example["value"])
            assert response.status_code == 200 or response.json()["type"] in {
                "/problems/wrong-dimension",
                "/problems/unknown-item",
                "/problems/no-encoder",
                "/problems/read-only",
                "/problems/invalid-input",
                "/problems/not-found",
                "/problems/invalid-request",
            }, response.text


def _fuzz(start: Any, made: Any, tmp_path: Path, cases: int) -> None:
    file = tmp_path / "keys.json"
    key = create_key(file, "fuzz", "admin")
    address = start(made.path, api_keys_file=file, data=tmp_path / "data")
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    operations = [one.ok() for one in schema.get_all_operations()]
    known = {"item-0", "item-1"}
    session = {"Authorization": f"Bearer {key}"}
    for operation in operations:

        @settings(
            max_examples=-(-cases // len(operations)),
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(), known_id=st.sampled_from(sorted(known)))
        def one_case(case: Any, known_id: str) -> None:
            if isinstance(case.body, dict):
                # half-right bodies go deeper than random ones
                for query in case.body.get("queries") or []:
                    if isinstance(query, dict) and isinstance(query.get("id"), str):
                        query["id"] = known_id
            case.call_and_validate(base_url=address, headers=session, checks=CHECKS, timeout=60)

        one_case()


def test_schemathesis_short(start: Any, made: Any, tmp_path: Path) -> None:
    _fuzz(start, made, tmp_path, cases=150)


@pytest.mark.full
def test_schemathesis_full(start: Any, made: Any, tmp_path: Path) -> None:
    _fuzz(start, made, tmp_path, cases=20_000)
