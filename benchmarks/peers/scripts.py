"""From data to the first served decision: small programs as a user would write them, timed as a whole.

Each reads what ``questions.py`` wrote and writes ``answers.json``: the label of each query in a list, null
where the query is unknown.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from benchmarks.peers.questions import Truth, judge, write_clinc150, write_grocery
from benchmarks.peers.registry import PEERS_PYTHON, ROOT
from benchmarks.peers.results import Figures, Results, measure_rounds

JOB = "first decision"
FOLDER = Path(__file__).parent / "first_decision"
# torchvision's wheels are built for GPUs: beside a torch of CPUs importing them fails for want of operators
# that nothing here calls
LAUNCH = """
import runpy, sys, torch
for name in ("nms", "qnms") if torch.version.cuda is None else ():
    torch.library.define("torchvision::" + name, "(Tensor dets, Tensor scores, float threshold) -> Tensor")
runpy.run_path(sys.argv[1], run_name="__main__")
"""


@dataclass(frozen=True)
class Script:
    """A program, and what writes its data and queries."""

    file: str
    write: Callable[[Path, Path], Truth]


SCRIPTS = {
    "Grocery: Limen": Script("grocery_limen.sh", write_grocery),
    "Grocery: open-metric-learning + qdrant-client": Script("grocery_oml_qdrant.py", write_grocery),
    "CLINC150: Limen": Script("clinc150_limen.sh", write_clinc150),
    "CLINC150: sentence-transformers + chroma": Script("clinc150_chroma.py", write_clinc150),
}


def count_lines(file: Path) -> int:
    """Lines that are code."""
    lines = (line.strip() for line in file.read_text().splitlines())
    return sum(bool(line) and not line.startswith(("#", '"""')) for line in lines)


def measure_scripts(results: Results, rounds: int, report: Callable[[str], None]) -> None:
    """Rounds of the programs, each in an empty folder of its own."""
    measure_rounds(results, JOB, "", list(SCRIPTS), rounds, lambda name: _run(SCRIPTS[name]), report)


def _run(script: Script) -> Figures:
    file = FOLDER / script.file
    command = (
        ["bash", "-e", str(file)] if file.suffix == ".sh" else [str(PEERS_PYTHON), "-c", LAUNCH, str(file)]
    )
    datasets = Path(os.environ.get("LIMEN_DATASETS", ROOT.parent / "shared" / "data")).resolve()
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "LIMEN_DATASETS": str(datasets),
            "PYTHONPATH": str(FOLDER),
            "LIMEN_CACHE": f"{folder}/cache",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        truth = script.write(datasets, Path(folder))
        start = perf_counter()
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        seconds = perf_counter() - start
        if done.returncode:
            raise RuntimeError(f"{file.name} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
        answers = json.loads((Path(folder) / "answers.json").read_text())
    return {"all": {"seconds": seconds, "lines": count_lines(file), **judge(answers, truth)}}
