"""The figures of a run; in a file, round by round, where they are to stay."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common.atomic_files import write_atomically
from common.file_locks import FileLock

Figures = dict[str, dict[str, float]]  # by case
Record = dict[str, Any]  # job, size, engine, round, figures by case


class Results:
    """What was measured, by job and size; several runs may write to one ``file`` at once.

    Args:
        file: JSON that is read first and written after every round; None keeps figures in memory alone.
        resume: rounds that are there already are not measured again.
    """

    def __init__(self, file: Path | None = None, *, resume: bool = False) -> None:
        self._file, self._resume = file, resume
        self.content: dict[str, Any] = {name: {} for name in ("versions", "tuned", "measured", "failed")}
        self.content |= {"absent": [], "records": []}
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            self.change(lambda content: None)

    def change(self, apply: Callable[[dict[str, Any]], None]) -> None:
        """Apply a change to what the file holds now, and write it."""
        if self._file is None:
            apply(self.content)
            return
        with FileLock(self._file.with_name(f"{self._file.name}.lock"), wait=True):
            if self._file.exists():
                self.content |= json.loads(self._file.read_text())
            apply(self.content)
            write_atomically(self._file, (json.dumps(self.content, indent=1) + "\n").encode())

    def begin(self, job: str, size: str, about: str) -> None:
        """Forget what a job gave before, unless this goes on with it; ``about`` when and where."""
        name = f"{job}, {size}"

        def apply(content: dict[str, Any]) -> None:
            content["failed"].pop(name, None)
            if self._resume and name in content["measured"]:
                return
            content["measured"][name] = about
            content["records"] = [
                record for record in content["records"] if (record["job"], record["size"]) != (job, size)
            ]

        self.change(apply)

    def note_engines(self, size: str, versions: dict[str, str], tuned: dict[str, dict[str, float]]) -> None:
        """Keep their versions, and how widely each searches at a size."""

        def apply(content: dict[str, Any]) -> None:
            content["versions"] |= versions
            content["tuned"].setdefault(size, {}).update(tuned)

        self.change(apply)

    def has(self, job: str, size: str, engine: str, number: int) -> bool:
        """Whether a round is there."""
        asked = (job, size, engine, number)
        return any(
            (each["job"], each["size"], each["engine"], each["round"]) == asked
            for each in self.content["records"]
        )

    def add(self, job: str, size: str, engine: str, number: int, figures: Figures) -> None:
        """Keep a round."""
        record = {"job": job, "size": size, "engine": engine, "round": number, "figures": figures}
        self.change(lambda content: content["records"].append(record))

    def fail(self, job: str, size: str, engine: str, why: str) -> None:
        """Keep why an engine has no more rounds."""
        self.change(lambda content: content["failed"].setdefault(f"{job}, {size}", {}).update({engine: why}))


def measure_rounds(
    results: Results,
    job: str,
    size: str,
    engines: Sequence[str],
    rounds: int,
    measure: Callable[[str], Figures],
    report: Callable[[str], None],
) -> None:
    """Rounds in which the engines take turns, every second one backwards; the first warms up and counts.

    An engine that fails is left out from then on; ``report`` gets why, or "" after a round.
    """
    failed: set[str] = set()
    for number in range(rounds):
        for engine in engines if number % 2 == 0 else engines[::-1]:
            if engine in failed:
                continue
            text = ""
            if not results.has(job, size, engine, number):
                try:
                    results.add(job, size, engine, number, measure(engine))
                except RuntimeError as error:
                    failed.add(engine)
                    text = f"{job}: {error}"
                    results.fail(job, size, engine, str(error))
            report(text)
