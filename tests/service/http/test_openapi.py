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


def _fuzz(start: Any, bundle: Any, tmp_path: Path, cases: int) -> None:
    """At least so many requests over all operations; one that takes nothing is soon exhausted."""
    file = tmp_path / "keys.json"
    key = create_key(file, "fuzz", "admin")
    address = start(bundle.path, api_keys_file=file, data=tmp_path / "data")
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    operations = [one.ok() for one in schema.get_all_operations()]
    asked = 0
    for number in itertools.count():
        each = -(-(cases - asked) // len(operations))
        made_of = [(one, _ask(one, number, each, address, key)) for one in operations]
        asked += sum(bundle for _, bundle in made_of)
        if asked >= cases:
            break
        operations = [one for one, bundle in made_of if bundle >= each]
        assert operations, f"every operation is exhausted after {asked} cases"


def _ask(operation: Any, seeded: int, cases: int, address: str, key: str) -> int:
    """How many cases of one operation there were; each must hold what the document says."""
    session = {"Authorization": f"Bearer {key}"}
    asked = 0

    @seed(seeded)
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(), known_id=st.sampled_from(["item-0", "item-1"]))
    def one_case(case: Any, known_id: str) -> None:
        nonlocal asked
        if isinstance(case.body, dict):
            # half-right bodies go deeper than random ones
            for query in case.body.get("queries") or []:
                if isinstance(query, dict) and isinstance(query.get("id"), str):
                    query["id"] = known_id
        case.call_and_validate(base_url=address, headers=session, checks=CHECKS, timeout=60)
        asked += 1

    one_case()
    return asked


def test_schemathesis_short(start: Any, bundle: Any, tmp_path: Path) -> None:
    _fuzz(start, bundle, tmp_path, cases=150)


@pytest.mark.full
@pytest.mark.timeout(7200)
def test_schemathesis_full(start: Any, bundle: Any, tmp_path: Path) -> None:
    _fuzz(start, bundle, tmp_path, cases=20_000)
