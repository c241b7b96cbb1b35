"""The published document is the service's, and the service keeps to it."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from scripts.openapi import TARGET, build_text
from service.auth.api_keys import create_key

RAW = {"Content-Type": "application/octet-stream"}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def test_the_published_document_is_current() -> None:
    assert TARGET.read_text() == build_text(), "run: python scripts/openapi.py"


def test_the_document_needs_no_private_words() -> None:
    private = r"(?i)\b(contract|methods 1\.7|strangers?|behind|crowd|told|nobody)\b"
    assert re.findall(private, build_text()) == []


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


def test_a_filter_that_is_no_filter_is_refused_as_documented(start: Any, bundle: Any, tmp_path: Path) -> None:
    address = start(bundle.path, data=tmp_path / "data", keep_unknowns="unknown")
    document = httpx.get(f"{address}/openapi.json").json()
    taken = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if not any(parameter["name"] == "filter" for parameter in operation.get("parameters", [])):
                continue
            taken += 1
            for text, status in (("{", 400), ("[1]", 422)):
                response = httpx.request(
                    method, address + path, params={"filter": text}, content=bytes(64), headers=RAW
                )
                assert response.status_code == status, (path, response.text)
                assert str(status) in operation["responses"], path
    assert taken >= 1


def _fuzz(start: Any, bundle: Any, tmp_path: Path, cases: int) -> None:
    """Send at least so many requests over all operations; those without parameters are soon exhausted."""
    file = tmp_path / "keys.json"
    key = create_key(file, "fuzz", "admin")
    address = start(bundle.path, api_keys_file=file, data=tmp_path / "data")
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    operations = [operation.ok() for operation in schema.get_all_operations()]
    cases_run = 0
    for number in itertools.count():
        each = -(-(cases - cases_run) // len(operations))
        counts = [
            (operation, _fuzz_operation(operation, number, each, address, key)) for operation in operations
        ]
        cases_run += sum(count for _, count in counts)
        if cases_run >= cases:
            break
        operations = [operation for operation, count in counts if count >= each]
        assert operations, f"every operation is exhausted after {cases_run} cases"


def _fuzz_operation(operation: Any, seeded: int, cases: int, address: str, key: str) -> int:
    """Send cases of one operation and return their number; every answer must conform to the document."""
    session = {"Authorization": f"Bearer {key}"}
    cases_run = 0

    @seed(seeded)
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(), known_id=st.sampled_from(["item-0", "item-1"]))
    def run_case(case: Any, known_id: str) -> None:
        nonlocal cases_run
        if isinstance(case.body, dict):
            # half-right bodies go deeper than random ones
            for query in case.body.get("queries") or []:
                if isinstance(query, dict) and isinstance(query.get("id"), str):
                    query["id"] = known_id
        case.call_and_validate(base_url=address, headers=session, checks=CHECKS, timeout=60)
        cases_run += 1

    run_case()
    return cases_run


def test_schemathesis_short(start: Any, bundle: Any, tmp_path: Path) -> None:
    _fuzz(start, bundle, tmp_path, cases=150)


@pytest.mark.full
@pytest.mark.timeout(7200)
def test_schemathesis_full(start: Any, bundle: Any, tmp_path: Path) -> None:
    _fuzz(start, bundle, tmp_path, cases=20_000)
