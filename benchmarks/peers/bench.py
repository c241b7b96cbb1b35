"""The engines at work on one set of data: built once, each in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.peers.dataset import write_dataset
from benchmarks.peers.registry import ENGINES, ROOT, Entry

SEARCHES = {"OMP_NUM_THREADS": "1"}  # clients are threads already; builds take all cores


class Worker:
    """A process with one engine, asked over its standard streams."""

    def __init__(self, entry: Entry, folder: Path, data: Path, environment: Mapping[str, str]) -> None:
        self._entry = entry
        command = [str(entry.python), "-m", "benchmarks.peers.worker", entry.engine, str(folder), str(data)]
        self._log = (folder / "worker.log").open("a")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=ROOT,
            env=os.environ | environment,
        )

    def ask(self, do: str, **arguments: Any) -> Any:
        """What it answers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._entry.title} ended; see {self._log.name}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{self._entry.title}: {answer['error']}; see {self._log.name}")
        return answer["answer"]

    def close(self) -> None:
        """End it and its server."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._log.close()


class Bench:
    """Data of one size below ``folder``, and the workers that were asked for.

    ``cases`` of searches: how many clients ask, and how many queries a request has.
    """

    def __init__(self, folder: Path, items: int, dim: int, cases: Mapping[str, tuple[int, int]]) -> None:
        self.size, self.cases = f"{items:,} x {dim}", cases
        self.folder = folder / f"{items}x{dim}"
        self.data = self.folder / "data"
        if not (self.data / "rows.npy").exists():
            write_dataset(self.data, items, dim)
        self.tuned: dict[str, dict[str, float]] = {}
        self._workers: dict[tuple[str, str], Worker] = {}

    def get_worker(self, name: str, copy: str = "") -> Worker:
        """A started engine; with ``copy`` on a copy of its files, which it may change."""
        if (name, copy) not in self._workers:
            folder = self._copy(name, copy) if copy else self._build(name)
            worker = self._workers[name, copy] = Worker(ENGINES[name], folder, self.data, SEARCHES)
            self.tuned[name] = worker.ask("start")
        return self._workers[name, copy]

    def _copy(self, name: str, copy: str) -> Path:
        """A copy of what an engine built, whose worker waits meanwhile."""
        source = self._build(name)
        target = self.folder / f"{source.name}-{copy}"
        shutil.rmtree(target, ignore_errors=True)
        working = self._workers.get((name, ""))
        if working is not None:
            working.ask("stop")
        subprocess.run(["cp", "-a", source, target], check=True)
        if working is not None:
            working.ask("start")
        return target

    def _build(self, name: str) -> Path:
        """The folder of what an engine built, now if it is not there."""
        name = ENGINES[name].same_files or name
        folder = self.folder / name
        if not (folder / "built").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            with self.open_worker(name, folder) as worker:
                built = worker.ask("build")
            (folder / "built").write_text(str(built["seconds"]))
        return folder

    def take_build_seconds(self, name: str) -> float | None:
        """How long the build took that the searches need, unless a round has counted it already."""
        built = self._build(name) / "built"
        seconds = built.read_text()
        built.write_text("")
        return float(seconds) if seconds else None

    @contextlib.contextmanager
    def open_worker(self, name: str, folder: Path) -> Iterator[Worker]:
        """A worker for the block."""
        worker = Worker(ENGINES[name], folder, self.data, {})
        try:
            yield worker
        finally:
            worker.close()

    def read_version(self, name: str) -> str:
        """The version of a started engine."""
        return str(self.get_worker(name).ask("version"))

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()
