"""Which engines take part, where they run, and in which jobs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.engines.pgvector import find_extension

ROOT = Path(__file__).resolve().parents[2]
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
ALL = ("search", "match", "filters", "ingest", "restart", "upserts")


@dataclass(frozen=True)
class Entry:
    """An engine: ``engine`` is MODULE:CLASS below ``engines``, ``needs`` what must be installed for it.

    ``same_files``: the entry whose files it opens.
    """

    title: str
    engine: str
    needs: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ALL
    same_files: str = ""
    here: Callable[[], bool] | None = None

    @property
    def is_ours(self) -> bool:
        """Whether it is Limen."""
        return self.engine.startswith("limen")

    @property
    def python(self) -> Path:
        """The Python that runs it: this one, or that of the peers' environment."""
        return PEERS_PYTHON if self.needs else Path(sys.executable)


ENGINES = {
    "limen": Entry("Limen, JSON", "limen_service:LimenService"),
    "limen-raw": Entry("Limen, raw rows", "limen_service:LimenRaw", jobs=("search",), same_files="limen"),
    "limen-workers": Entry(
        "Limen, JSON, two processes", "limen_service:LimenWorkers", jobs=("search",), same_files="limen"
    ),
    "limen-library": Entry(
        "Limen in process",
        "limen_library:LimenLibrary",
        jobs=("search", "match", "filters", "restart"),
        same_files="limen",
    ),
    "chroma": Entry("chroma's server", "chroma:Chroma", ("chromadb",)),
    "pgvector": Entry(
        "PostgreSQL + pgvector", "pgvector:PgVector", ("psycopg", "pgvector"), here=find_extension
    ),
    "milvus": Entry("milvus-lite's server", "milvus:Milvus", ("milvus_lite", "pymilvus")),
    "lance": Entry("LanceDB in process", "lance:Lance", ("lancedb",)),
    "edge": Entry("qdrant edge in process", "edge:Edge", ("qdrant_edge",)),
    "faiss": Entry("FAISS in process", "faiss_graph:FaissGraph", jobs=("search",)),
}


def explain_absence(entry: Entry) -> str | None:
    """Why an engine cannot take part, in one sentence; None where it can."""
    if not entry.needs:
        return None
    if not PEERS_PYTHON.exists():
        return f"{entry.title} is not at hand: install the peers with `make bench-peers`."
    names = ", ".join(map(repr, entry.needs))
    program = (
        f"import sys; from importlib.util import find_spec; sys.exit(not all(map(find_spec, [{names}])))"
    )
    if subprocess.run([PEERS_PYTHON, "-c", program], check=False).returncode != 0:
        missing = " and ".join(entry.needs)
        return f"{entry.title} is not at hand: .venv-peers lacks {missing}; run `make bench-peers`."
    if entry.here is not None and not entry.here():
        return f"{entry.title} is not at hand: install PostgreSQL's server with the extension `vector`."
    return None
