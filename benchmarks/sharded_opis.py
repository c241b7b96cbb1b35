"""OPIS in 1, 2 and 4 processes: the same counts to the last bit, and the processor time of the busiest.

    python -m benchmarks.sharded_opis [--items 20000] [--dimension 128] [--processes 1 2 4]

Processes are started as torchrun starts them (``RANK``, ``WORLD_SIZE``) and run ``limen opis``. Speed-up is
that of the busiest process' own time: on a busy machine the clock tells more of other work.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PROGRAM = """
import resource, sys
from limen.cli.main import main
try:
    main()
finally:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print('SECONDS', usage.ru_utime + usage.ru_stime, file=sys.stderr)
"""


def write_vectors(file: Path, n: int, dimension: int) -> None:
    """Classes of twenty, some tight and some loose."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) // 20
    centres = rng.normal(size=(labels[-1] + 1, dimension))
    spread = rng.uniform(0.4, 1.2, size=(len(centres), 1))[labels]
    np.savez(file, embeddings=centres[labels] + spread * rng.normal(size=(n, dimension)), labels=labels)


def run(folder: Path, processes: int) -> tuple[list[float], float, bytes]:
    """Seconds of processor time of each process, of the clock, and the counts."""
    begun, out = time.perf_counter(), folder / f"{processes}.npz"
    variables = {"OMP_NUM_THREADS": "1", "WORLD_SIZE": str(processes), "MASTER_PORT": str(processes)}
    started = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                PROGRAM,
                "opis",
                "vectors.npz",
                "--exchange",
                "exchange",
                "--out",
                str(out),
            ],
            cwd=folder,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env=os.environ | variables | {"RANK": str(rank)},
        )
        for rank in range(processes)
    ]
    seconds = []
    for process in started:
        _, said = process.communicate()
        assert process.returncode == 0, said
        seconds.append(float(said.rpartition("SECONDS ")[2]))
    with np.load(out) as counts:
        content = b"".join(counts[name].tobytes() for name in ("thresholds", "genuine", "impostor"))
    return seconds, time.perf_counter() - begun, content


def main() -> None:
    """Measure all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, base, expected = Path(name), 0.0, b""
        write_vectors(folder / "vectors.npz", given.items, given.dimension)
        print(f"{given.items} items of {given.dimension} numbers, load {os.getloadavg()[0]:.1f}")
        for processes in given.processes:
            seconds, wall, counts = run(folder, processes)
            base, expected = base or max(seconds), expected or counts
            print(
                f"{processes} processes: busiest {max(seconds):.1f} s, all {sum(seconds):.1f} s, "
                f"clock {wall:.1f} s; speed-up {base / max(seconds):.2f}; counts "
                f"{'equal to the last bit' if counts == expected else 'DIFFER'}",
                flush=True,
            )


if __name__ == "__main__":
    main()
