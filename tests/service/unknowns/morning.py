"""A morning with unknowns: real queries of classes that the gallery lacks, and a person who names them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from api_schemas.build_config import IndexConfig
from api_schemas.http.unknowns import Unknown
from api_schemas.operating_point import GallerySize, Target
from common.array_types import Texts, UnitVectors
from decision.scorers import CosineScorer
from embeddings.embedding_set import EmbeddingSet
from embeddings.hashes import hash_model_name
from evaluation.calibration.calibrate import calibrate_threshold
from evaluation.calibration.sets.sources import CalibrationSources
from evaluation.calibration.tradeoff.measure_tradeoff import MeasuredSets, measure_tradeoff
from evaluation.evaluate import evaluate_embeddings
from index.bundle import write_bundle
from limen.client import Client

UNSEEN, QUERIES = 20, 10  # classes, and queries of each
KNOWN, FIT = 40, 60  # classes of the gallery, and those that the thresholds are chosen on
ITEMS = 10
MOST_CLICKS = 30


class Morning(NamedTuple):
    """A bundle, and 200 queries of 20 classes that it lacks."""

    bundle: Path
    queries: UnitVectors
    truth: Texts


class Outcome(NamedTuple):
    """What a person's work came to: clicks, and queries that are items under a right and a wrong name."""

    clicks: int
    right: int
    wrong: int


def build_morning(
    out: Path, vectors: UnitVectors, labels: Texts, seed: int = 0, far: float = 0.01
) -> Morning:
    """Split classes into unseen ones, known ones, and those that the thresholds are chosen on."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.unique(labels))
    chosen = {label: rng.permutation(np.flatnonzero(labels == label)) for label in order}
    unseen, known = order[:UNSEEN], order[UNSEEN : UNSEEN + KNOWN]
    fitting = order[UNSEEN + KNOWN : UNSEEN + KNOWN + FIT]

    def take(classes: Texts) -> EmbeddingSet:
        rows = np.concatenate([chosen[label][:ITEMS] for label in classes])
        return EmbeddingSet.from_arrays(
            vectors[rows], labels[rows], ids=[f"{out.name}-{row}" for row in rows]
        )

    gallery, fit = take(known), take(fitting)
    model_hash = hash_model_name(out.name, vectors.shape[1])
    size = GallerySize(items=len(gallery), classes=KNOWN)
    sources = CalibrationSources(fit)
    verify = calibrate_threshold(sources, Target(kind="far", value=far), name="verify", model_hash=model_hash)
    match = calibrate_threshold(
        sources, Target(kind="fpir", value=0.05, gallery=size), name="match", model_hash=model_hash
    )
    sets = MeasuredSets.of_items(fit, CosineScorer(), "nearest", None)
    tradeoff = measure_tradeoff(sets, "verify", [verify.point])
    report = evaluate_embeddings(fit, model_hash=model_hash, split="test")
    write_bundle(
        out,
        name=out.name,
        items=gallery,
        model_hash=model_hash,
        report=report.model_copy(update={"tradeoffs": [tradeoff]}),
        index_config=IndexConfig(),
        operating_points=[verify.point, match.point],
        active={"verify": verify.point.id, "match": match.point.id},
    )
    rows = rng.permutation(np.concatenate([chosen[label][:QUERIES] for label in unseen]))
    return Morning(out, vectors[rows], labels[rows])


def read_clinc(datasets: Path) -> tuple[UnitVectors, Texts]:
    """Sentences of CLINC150's test part in 150 intents, as all-MiniLM-L6-v2 embeds them."""
    file = datasets / "clinc150" / "clinc150_minilm.npz"
    with np.load(file) as arrays:
        rows = arrays["part"] == "test"
        vectors = arrays["embeddings"][rows].astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), arrays["labels"][rows]


def send_queries(client: Client, morning: Morning) -> int:
    """Match each query alone; returns how many were answered unknown."""
    answers = [
        client.match([{"vector": row.tolist(), "metadata": {"truth": str(label)}}]).results[0]
        for row, label in zip(morning.queries, morning.truth, strict=True)
    ]
    return sum(answer.decision == "unknown" for answer in answers)


def work_through(
    client: Client, name: Callable[[str, str], list[Unknown]], confirm: Callable[[str], None]
) -> int:
    """A person's work, as the page shows it; returns the clicks.

    Groups are looked at from the largest on: three pictures lie on top of each, and it gets their name
    where they are alike; a stack that is seen to be mixed is left alone. What is then offered is confirmed
    where every picture is right.

    Args:
        name: enrols a group under a label; returns what is offered.
        confirm: enrols what is offered for a label.
    """
    clicks = 1  # "Group again"
    assert client.wait(client.group_unknowns()).status == "done"
    while clicks < MOST_CLICKS:
        tops = {
            group.id: {str(member.metadata["truth"]) for member in group.members}
            for group in client.unknown_groups(members=3).groups
        }
        alike = next((group for group, labels in tops.items() if len(labels) == 1), None)
        if alike is None:
            break
        (label,) = tops[alike]
        offered = name(alike, label)
        clicks += 1
        if offered and clicks < MOST_CLICKS and {str(one.metadata["truth"]) for one in offered} == {label}:
            confirm(label)
            clicks += 1
    return clicks


def count_outcome(client: Client, clicks: int) -> Outcome:
    """What became of the queries."""
    enrolled = client.unknowns(status="enrolled", limit=1000).unknowns
    right = sum(entry.name == entry.metadata["truth"] for entry in enrolled)
    return Outcome(clicks, right, len(enrolled) - right)
