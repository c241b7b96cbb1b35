"""How processes add up their counts: through files in a folder that all of them see."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from common.array_types import Int64s
from common.atomic_files import write_atomically
from common.errors import ConfigError, LimenError

POLL_SECONDS = 0.02
PATIENCE = 3600.0  # seconds without a new file until the others are taken for gone


@dataclass
class FolderExchange:
    """One of ``count`` processes, ``rank`` from 0.

    Counts are whole numbers: their sum does not depend on the order or the number of the processes.

    Attributes:
        folder: empty when the processes begin, or used by none since; needed for two or more.
    """

    rank: int = 0
    count: int = 1
    folder: Path | None = None
    _step: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.count:
            raise ConfigError(f"Process {self.rank} of {self.count}: ranks go from 0 to {self.count - 1}.")
        if self.count > 1:
            if self.folder is None:
                raise ConfigError(
                    f"{self.count} processes add up counts through files: name a folder that all of them "
                    "see with --exchange."
                )
            self.folder.mkdir(parents=True, exist_ok=True)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], folder: Path | None) -> FolderExchange:
        """As torchrun and accelerate's launcher say it: ``RANK``, ``WORLD_SIZE``, and the run's own id."""
        rank, count = int(environment.get("RANK", "0")), int(environment.get("WORLD_SIZE", "1"))
        run = environment.get("TORCHELASTIC_RUN_ID", "")
        restart = environment.get("TORCHELASTIC_RESTART_COUNT", "0")
        if folder is not None and count > 1:
            folder = folder / f"{run or 'run'}-{environment.get('MASTER_PORT', '0')}-{restart}"
        return cls(rank, count, folder)

    def add_up(self, counts: Int64s, what: str) -> Int64s:
        """The sum of the counts, int64, of all processes; ``what`` they are is the same in all of them."""
        if self.count == 1 or self.folder is None:
            return counts
        self._step += 1
        written = io.BytesIO()
        np.save(written, counts)
        write_atomically(self._name(self.rank), written.getvalue())
        total = np.zeros_like(counts)
        for rank in range(self.count):
            total += self._read(rank, what)
        return total

    def _name(self, rank: int) -> Path:
        assert self.folder is not None
        return self.folder / f"step-{self._step}-{rank}.npy"

    def _read(self, rank: int, what: str) -> Int64s:
        begun, file = time.monotonic(), self._name(rank)
        while not file.exists():
            if time.monotonic() - begun > PATIENCE:
                raise LimenError(
                    f"Process {rank} of {self.count} has not written its {what} to {file.parent} for "
                    f"{PATIENCE / 60:.0f} minutes: start all of them again, with an empty folder."
                )
            time.sleep(POLL_SECONDS)
        return np.asarray(np.load(file, allow_pickle=False))

    def close(self) -> None:
        """Wait for the others, and remove what this process wrote."""
        if self.count > 1 and self.folder is not None:
            self.add_up(np.zeros(1, dtype=np.int64), "last word")
            # the last step's own files are left: somebody may still read them
            for step in range(1, self._step):
                (self.folder / f"step-{step}-{self.rank}.npy").unlink(missing_ok=True)
