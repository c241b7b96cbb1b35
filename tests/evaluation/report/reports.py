"""A report, an operating point and a parser of pages, for the tests of the report room."""

from __future__ import annotations

import html.parser
from datetime import UTC, datetime

import numpy as np

from api_schemas.operating_point import OperatingPoint, Proof, Score, Target
from api_schemas.report import Report
from embeddings.embedding_set import EmbeddingSet
from evaluation.evaluate import evaluate_embeddings


def make_report() -> Report:
    """14 classes of unequal spread whose labels must be escaped."""
    draw = np.random.default_rng(0)
    labels = np.repeat([f"<class {k}>" for k in range(14)], 8)
    centres = np.repeat(draw.normal(size=(14, 10)), 8, axis=0)
    spread = np.repeat(draw.uniform(0.2, 1.3, 14), 8)[:, None]
    items = EmbeddingSet.from_arrays(centres + spread * draw.normal(size=centres.shape), labels)
    return evaluate_embeddings(items, model_hash="m" * 64, split="test")


def make_tiny_report() -> Report:
    """Three items: no curve of utility, no OPIS."""
    items = EmbeddingSet.from_arrays([[1, 0], [1, 0.1], [0, 1]], ["a", "a", "b"])
    return evaluate_embeddings(items, model_hash="m", split="all")


def make_point() -> OperatingPoint:
    """A 1:1 point whose name must be escaped."""
    evidence = Proof(
        n_items=112, n_classes=14, n_genuine_pairs=392, n_impostor_pairs=5824, far=0.01, far_upper=0.02,
        frr=0.2, frr_upper=0.3, fpir=None, fpir_upper=None, fnir=None, method="m", classes_disjoint=True,
    )  # fmt: skip
    return OperatingPoint.freeze(
        name="far-1 & more", created_at=datetime.now(UTC), model_hash="m", data_hash="d",
        score=Score(), threshold=0.7, target=Target(kind="far", value=0.01), fit=evidence, proof=evidence,
        per_class=[], probability=None, consistency=None,
    )  # fmt: skip


class Tags(html.parser.HTMLParser):
    """Opened and closed tags, and every attribute that could leave the page."""

    VOID = frozenset({"meta", "line", "rect", "path"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag
