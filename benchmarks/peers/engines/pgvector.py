"""PostgreSQL with pgvector: an HNSW index, indexed columns, asked by ``pgbench`` over prepared statements.

The queries lie in a table, so that they are not sent over the socket: an advantage that is left to it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from benchmarks.peers.client_load import Load, summarise
from benchmarks.peers.dataset import Condition, Dataset, K
from benchmarks.peers.engine import MATCH_HITS, Engine, Hit
from benchmarks.peers.server_process import ServerProcess, find_free_port

SETTINGS = {
    "shared_buffers": "1GB",
    "maintenance_work_mem": "2GB",
    "max_parallel_maintenance_workers": "1",
    "max_wal_size": "4GB",
    "jit": "off",
}
TABLE = """
CREATE EXTENSION vector;
CREATE TABLE items (row int PRIMARY KEY, label text, value int, v vector({dim}));
CREATE TABLE queries (row int PRIMARY KEY, v vector({dim}));
"""
INDEXES = """
CREATE INDEX ON items USING hnsw (v vector_ip_ops);
CREATE INDEX ON items (label);
CREATE INDEX ON items (value);
"""


def find_program(name: str) -> str | None:
    """A program of PostgreSQL's server, on the path or where Debian keeps it."""
    below = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(below[-1]) if below else None)


def find_extension() -> bool:
    """Whether PostgreSQL is here with the extension."""
    if find_program("postgres") is None:
        return False
    return any(Path("/usr/share/postgresql").glob("*/extension/vector.control"))


class PgVector(Engine):
    """Searches return ids and inner products; decisions ask for the label as well."""

    def __init__(self, folder: Path, data: Dataset) -> None:
        super().__init__(folder, data)
        self._port = find_free_port()
        self._effort = 40
        self._server: ServerProcess | None = None
        # PostgreSQL refuses to run as root
        self._as = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}

    def read_version(self) -> str:
        extension = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
        (server,), (vector,) = (
            self._open.execute(each).fetchone() for each in ("SHOW server_version", extension)
        )
        return f"PostgreSQL {server.split()[0]}, pgvector {vector}"

    def _run(self) -> None:
        command = [find_program("postgres") or "", "-D", str(self.folder / "data"), "-k", str(self.folder)]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", f"port={self._port}"]
        for name, value in SETTINGS.items():
            command += ["-c", f"{name}={value}"]
        self._server = ServerProcess(command, self._port, self.folder / "log", **self._as)

    def _connect(self) -> Any:
        from pgvector.psycopg import register_vector

        connection = self._connect_plain()
        register_vector(connection)
        return connection

    def _connect_plain(self) -> Any:
        import psycopg

        while True:  # it listens before it takes connections
            try:
                return psycopg.connect(self._uri, autocommit=True)
            except psycopg.OperationalError as error:
                if "starting up" not in str(error):
                    raise
                time.sleep(0.01)

    @property
    def _uri(self) -> str:
        options = f"-c hnsw.ef_search={self._effort} -c hnsw.iterative_scan=relaxed_order"
        return f"postgresql://postgres@127.0.0.1:{self._port}/postgres?options={quote(options)}"

    def build(self) -> None:
        if self._as:
            shutil.chown(self.folder, **self._as)
        subprocess.run(
            [find_program("initdb") or "", "-D", str(self.folder / "data"), "-U", "postgres", "-A", "trust"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
            **self._as,
        )
        self._run()
        with self._connect_plain() as connection:
            connection.execute(TABLE.format(dim=self.data.dim))
        with self._connect() as connection:
            with connection.cursor().copy("COPY items FROM STDIN WITH (FORMAT BINARY)") as copy:
                copy.set_types(["int4", "text", "int4", "vector"])
                for row, vector in enumerate(self.data.rows):
                    copy.write_row((row, str(self.data.labels[row]), int(self.data.values[row]), vector))
            with connection.cursor().copy("COPY queries FROM STDIN WITH (FORMAT BINARY)") as copy:
                copy.set_types(["int4", "vector"])
                for row, vector in enumerate(self.data.queries):
                    copy.write_row((row, vector))
            connection.execute(INDEXES)
            connection.execute("VACUUM ANALYZE")
        self.stop()

    def start(self) -> None:
        self._run()
        self._open = self._connect()

    def stop(self) -> None:
        if hasattr(self, "_open"):
            self._open.close()
        if self._server is not None:
            self._server.stop()
            self._server = None

    def set_effort(self, effort: int) -> None:
        self._effort = effort
        self._open.execute(f"SET hnsw.ef_search = {effort}")

    def search(
        self, queries: np.ndarray, k: int, condition: Condition | None = None, *, labels: bool = False
    ) -> list[list[Hit]]:
        where, values = _write_filter(condition)
        label = "label" if labels else "''"
        statement = (
            f"SELECT row, -(v <#> %s), {label} FROM items {where.format(*['%s'] * len(values))} "
            f"ORDER BY v <#> %s LIMIT {k}"
        )
        return [
            self._open.execute(statement, (query, *values, query), prepare=True).fetchall()
            for query in queries
        ]

    def measure_match(self, seconds: float) -> Load:
        """With at least as many candidates as are asked for."""
        effort = self._effort
        self.set_effort(max(effort, MATCH_HITS))
        try:
            return super().measure_match(seconds)
        finally:
            self.set_effort(effort)

    def measure_search(
        self, clients: int, batch: int, seconds: float, conditions: Sequence[Condition] = ()
    ) -> Load:
        last = len(self.data.queries) - batch
        if batch > 1:
            script = (
                f"\\set at random(0, {last})\n"
                f"SELECT q.row, i.row, i.score FROM queries q CROSS JOIN LATERAL (SELECT row, "
                f"v <#> q.v AS score FROM items ORDER BY v <#> q.v LIMIT {K}) i "
                f"WHERE q.row BETWEEN :at AND :at + {batch - 1};\n"
            )
            return self._run_pgbench([script], clients, seconds)
        scripts = []
        for number, condition in enumerate(conditions or [None]):
            where, values = _write_filter(condition)
            at = number if conditions else f"random(0, {last})"
            scripts.append(
                f"\\set at {at}\n"
                f"SELECT row, v <#> (SELECT v FROM queries WHERE row = :at) FROM items "
                f"{where.format(*map(repr, values))} "
                f"ORDER BY v <#> (SELECT v FROM queries WHERE row = :at) LIMIT {K};\n"
            )
        return self._run_pgbench(scripts, clients, seconds)

    def _run_pgbench(self, scripts: Sequence[str], clients: int, seconds: float) -> Load:
        with tempfile.TemporaryDirectory() as temporary:
            command = [find_program("pgbench") or "", "-n", "-M", "prepared", "-c", str(clients), "-j", "1"]
            command += ["-T", str(max(1, round(seconds))), "-l", "--log-prefix", f"{temporary}/log"]
            for number, script in enumerate(scripts):
                file = Path(temporary) / f"{number}.sql"
                file.write_text(script)
                command += ["-f", str(file)]
            subprocess.run([*command, self._uri], check=True, stdout=subprocess.DEVNULL)
            lines = [
                line.split() for log in Path(temporary).glob("log.*") for line in log.read_text().splitlines()
            ]
        times = [int(line[2]) / 1e6 for line in lines]
        ends = [int(line[4]) + int(line[5]) / 1e6 for line in lines]
        return summarise(times, max(ends) - min(ends) + times[0])

    def upsert(self, rows: Sequence[int], vectors: np.ndarray) -> None:
        with self._connect_for_writes().cursor() as cursor:
            cursor.executemany(
                "INSERT INTO items VALUES (%s, %s, %s, %s) ON CONFLICT (row) DO UPDATE SET v = excluded.v",
                [
                    (int(row), str(self.data.labels[row]), int(self.data.values[row]), vector)
                    for row, vector in zip(rows, vectors, strict=False)
                ],
            )

    def _connect_for_writes(self) -> Any:
        if not hasattr(self, "_writes"):
            self._writes = self._connect()
        return self._writes

    def list_processes(self) -> list[int]:
        assert self._server is not None
        return self._server.list_processes()


def _write_filter(condition: Condition | None) -> tuple[str, tuple[Any, ...]]:
    """A WHERE clause with places for values."""
    if condition is None:
        return "", ()
    if "label" in condition:
        return "WHERE label = {}", (condition["label"],)
    return "WHERE value >= {} AND value < {}", tuple(condition["value"])
