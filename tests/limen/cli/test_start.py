"""Commands start quickly: what is imported for them, by name."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from limen.cli.main import COMMANDS

RUN = """
import json, sys
from limen.cli.main import main
for line in json.loads(sys.argv[1]):
    sys.argv = ["limen", *line]
    try:
        main()
    except SystemExit as stopped:
        assert not stopped.code, line
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def list_imports(*lines: list[str]) -> set[str]:
    """Modules in memory after these command lines ran in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(lines)], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_the_list_of_commands_imports_none_of_them() -> None:
    imported = list_imports(["--help"])
    assert {name for name in imported if name.startswith("limen.cli.commands")} == set()
    assert imported.isdisjoint({"numpy", "pydantic", "rich", "tqdm", "importlib.metadata"})


def test_the_help_of_every_command_needs_neither_arrays_nor_documents() -> None:
    imported = list_imports(*([name, "--help"] for name in COMMANDS))
    assert {f"limen.cli.commands.{entry.file}" for entry in COMMANDS.values()} <= imported
    assert imported.isdisjoint({"numpy", "torch", "rich", "tqdm", "yaml", "api_schemas.base"})


def test_evaluating_a_file_imports_what_it_needs_alone(embeddings_file: Path) -> None:
    imported = list_imports(["evaluate", str(embeddings_file)])
    assert "evaluation.kernels.compiled" in imported
    slow = {"torch", "faiss", "pyarrow", "matplotlib", "scipy.stats", "scipy.optimize", "scipy.spatial"}
    assert imported.isdisjoint(slow)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_what_the_help_of_a_command_begins_with(name: str) -> None:
    module = import_module(f"limen.cli.commands.{COMMANDS[name].file}")
    group = getattr(module, "app", None)
    help_text = inspect.getdoc(getattr(module, name.replace("-", "_"))) if group is None else group.info.help
    assert str(help_text).splitlines()[0] == COMMANDS[name].sentence
