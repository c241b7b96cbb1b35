"""Who is this? Class evidence beside the nearest item: missed known queries at the same false matches.

    python -m benchmarks.identification [--draws 5] [--runs NAME=FOLDER ...] [--simulate 150 [--estimated]]

CLINC150 sentence vectors (a third of the intents each for covariances, for weights and to test on, drawn
again each time; out-of-scope texts as real unknown queries) and runs given by name (training, validation and
test items of their embeddings). Prints FNIR at hindsight thresholds with FPIR 1 % and 5 %, each query in turn
known and unknown, recall@1, and the ratio to the nearest item with its interval over resampled test classes.
``auto`` is what ``limen calibrate --aggregate auto`` decides by. Grocery photos need Pillow and onnxruntime.

``--simulate N`` draws N sets of 120 classes, proves thresholds for galleries of 30 and 120 classes on each,
and counts how often their FPIR on new classes lies within the target; with ``--estimated`` sets of 20, 40 and
120 classes (or ``--classes``), and whether estimates are within a factor of two. ``--laws`` chooses
distributions by number.
"""

from __future__ import annotations

import argparse
import io
import os
import zipfile
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from api_schemas.operating_point import Aggregate, GallerySize, Status, Target
from benchmarks.statistics import (
    CLASSES,
    EACH,
    ESTIMATED_CLASSES,
    ESTIMATED_TARGETS,
    GALLERIES,
    LAWS,
    TARGET,
    Law,
    format_fraction,
    print_reached,
)
from common.array_types import Float32s, Float64s, Int64s
from common.console import track
from common.errors import CalibrationRefused
from decision.class_evidence import EvidenceScorer
from decision.scorers import accepts
from embeddings.embedding_set import EmbeddingSet, normalise_rows
from embeddings.files import read_embeddings
from evaluation.calibration.calibrate import Calibrator
from evaluation.calibration.class_evidence.choose_evidence import choose_evidence
from evaluation.calibration.class_evidence.evidence_trials import score_evidence_trials
from evaluation.calibration.nearest_scores import score_nearest_trials
from evaluation.calibration.select_threshold import select_threshold
from evaluation.calibration.sets.sources import CalibrationSources
from evaluation.metrics.class_bootstrap import draw_classes
from evaluation.pairs.pairs import Pairs, arrange

ROOT = Path(__file__).resolve().parents[1]
FPIRS = (0.01, 0.05)
PROBES = 40  # of a class
REPLICATES = 200
MOST_CLASSES = 300
POPULATION = 2000  # new classes that thresholds are judged by, on either side
AGGREGATES: tuple[Aggregate, ...] = ("nearest", "evidence")


@dataclass(frozen=True, eq=False)
class Case:
    """Sets of different classes, real unknown queries, and a gallery apart from the test items if given."""

    training: EmbeddingSet | None
    fit: EmbeddingSet
    test: EmbeddingSet
    unknown: EmbeddingSet | None = None
    gallery: EmbeddingSet | None = None


@dataclass(frozen=True, eq=False)
class Measured:
    """Scores of one rule: of probes with every class, and the best of every real unknown query."""

    scores: Float32s
    own: Int64s
    unknown: Float32s | None

    def compute_rates(self, weights: Float64s) -> list[float]:
        """Recall@1, FNIR at each FPIR, and the same by real unknown queries, test classes weighed."""
        rows = np.flatnonzero(weights[self.own] > 0)
        scores = np.where(weights[None, :] > 0, self.scores[rows], np.float32(-np.inf))
        own, of_rows = self.own[rows], weights[self.own[rows]]
        at = np.arange(len(rows)), own
        genuine = scores[at]
        scores[at] = -np.inf
        best = scores.max(axis=1)
        decisive = np.where(genuine > best, genuine, -np.inf)
        rates = [float(of_rows @ np.isfinite(decisive) / of_rows.sum())]
        kinds = [(best, of_rows)]
        if self.unknown is not None:
            kinds.append((self.unknown, np.ones(len(self.unknown))))
        for others, mass in kinds:
            order = np.argsort(-others, kind="stable")
            matched = np.cumsum(mass[order])
            for fpir in FPIRS:
                refused = min(int(np.searchsorted(matched, fpir * matched[-1], side="right")), len(order) - 1)
                missed = ~(decisive > others[order[refused]])
                rates.append(float(of_rows @ missed / of_rows.sum()))
        return rates


def split_clinc(seed: int) -> Case:
    """A third of the intents each for covariances, for weights, and to test on."""
    folder = Path(os.environ.get("LIMEN_DATASETS", ROOT.parent / "shared" / "data"))
    with np.load(folder / "clinc150" / "clinc150_minilm.npz") as archive:
        vectors, labels = archive["embeddings"].astype(np.float32), archive["labels"]
    intents = np.random.default_rng(seed).permutation(np.unique(labels[labels != "oos"]))
    training, fit, test = (
        EmbeddingSet.from_arrays(vectors[rows], labels[rows])
        for rows in (np.isin(labels, part) for part in np.array_split(intents, 3))
    )
    outside = labels == "oos"
    return Case(training, fit, test, EmbeddingSet.from_arrays(vectors[outside], labels[outside]))


def split_run(run: Path, seed: int) -> Case:
    """The sets of a run; of very many test classes a random part, drawn again for each seed."""
    training, fit, test = (
        read_embeddings(run / "embeddings" / f"{part}.npz") for part in ("train", "validation", "test")
    )
    chosen = np.random.default_rng(seed).permutation(test.classes)[:MOST_CLASSES]
    return Case(training, fit, test.select_classes(chosen))


def split_grocery(seed: int) -> Case:
    """Photos by the frozen encoder: half of the products to fit on, half to test on; references of the list
    train, queries of the list test."""
    references, queries = (embed_grocery(part) for part in ("train", "test"))
    products = np.intersect1d(references.classes, queries.classes)
    order = np.random.default_rng(seed).permutation(products)
    half = len(order) // 2
    return Case(
        None,
        references.select_classes(order[:half]),
        queries.select_classes(order[half:]),
        gallery=references.select_classes(order[half:]),
    )


def embed_grocery(part: str) -> EmbeddingSet:
    """The photos of one list, 224 x 224 pixels, normalised as MobileNetV2 was trained on them."""
    import onnxruntime
    from PIL import Image

    folder = Path(os.environ.get("LIMEN_DATASETS", ROOT.parent / "shared" / "data"))
    cache = Path(os.environ.get("TMPDIR", "/tmp")) / f"limen-grocery-{part}.npz"
    if cache.is_file():
        return read_embeddings(cache)
    session = onnxruntime.InferenceSession(str(folder / "encoders" / "mobilenet_v2_imagenet.onnx"))
    name = session.get_inputs()[0].name
    rows, labels = [], []
    with zipfile.ZipFile(folder / "grocery_store" / "images_88px.zip") as archive:
        for line in (folder / "grocery_store" / f"{part}.txt").read_text().splitlines():
            file, fine = (field.strip() for field in line.split(",")[:2])
            with Image.open(io.BytesIO(archive.read(file))) as image:
                pixels = np.asarray(image.convert("RGB").resize((224, 224)), dtype=np.float32) / 255
            scaled = (pixels - [0.485, 0.456, 0.406]) / np.array([0.229, 0.224, 0.225])
            rows.append(session.run(None, {name: scaled.transpose(2, 0, 1)[None].astype(np.float32)})[0][0])
            labels.append(fine)
    vectors = normalise_rows(np.stack(rows).reshape(len(rows), -1))
    np.savez(cache, embeddings=vectors, labels=np.array(labels))
    return read_embeddings(cache)


def split_references(
    items: EmbeddingSet, references: int | None, seed: int
) -> tuple[EmbeddingSet, EmbeddingSet]:
    """Random references and probes of each class, without an item in common; half and half unless given."""
    rng = np.random.default_rng([seed, 99])
    shuffled = rng.permutation(len(items))
    order = shuffled[np.argsort(items.codes[shuffled], kind="stable")]
    gallery, probes = [], []
    for own in np.split(order, np.cumsum(np.bincount(items.codes))[:-1]):
        n = len(own) // 2 if references is None else min(references, len(own) - 1)
        gallery.append(own[: max(1, n)])
        probes.append(own[max(1, n) :][:PROBES])
    return items.subset(np.concatenate(gallery)), items.subset(np.concatenate(probes))


def measure(
    gallery: EmbeddingSet, probes: EmbeddingSet, unknown: EmbeddingSet | None, scorer: EvidenceScorer | None
) -> Measured:
    """Scores of probes and of real unknown queries by one rule; the nearest item's without a scorer."""

    def score(pairs: Pairs) -> tuple[Float32s, Int64s]:
        trials = score_nearest_trials(pairs) if scorer is None else score_evidence_trials(pairs)
        scores = trials.other.copy()
        known = np.flatnonzero(trials.codes >= 0)
        scores[known, trials.codes[known]] = trials.own[known]
        return scores, trials.codes

    scores, own = score(arrange(probes, gallery=gallery, scorer=scorer))
    if unknown is None:
        return Measured(scores, own, None)
    return Measured(scores, own, score(arrange(unknown, gallery=gallery, scorer=scorer))[0].max(axis=1))


def compare(name: str, cases: Iterator[Case], references: int | None) -> None:
    """Print the lines of one data set and number of references: means over draws, ratios with intervals."""
    measured: dict[str, list[Measured]] = {"nearest": [], "auto": [], "evidence": []}
    taken = 0
    for seed, case in enumerate(cases):
        gallery, probes = split_references(case.gallery or case.test, references, seed)
        if case.gallery is not None:
            probes = case.test
        chosen = choose_evidence(
            case.fit, case.training, case.test, references=references, required=True, seed=seed
        )
        scorer = chosen.scorer
        assert scorer is not None
        nearest = measure(gallery, probes, case.unknown, None)
        evidence = measure(gallery, probes, case.unknown, scorer)
        for rule, scores in zip(
            measured, (nearest, evidence if chosen.is_sure else nearest, evidence), strict=True
        ):
            measured[rule].append(scores)
        taken += chosen.is_sure
        print(f"<!-- {name}, {references or 'half'}, draw {seed}: {chosen.reason} -->", flush=True)
    n = len(measured["nearest"])
    rates = {
        rule: np.mean([m.compute_rates(np.ones(m.scores.shape[1])) for m in of_rule], axis=0)
        for rule, of_rule in measured.items()
    }
    drawn: dict[str, list[Float64s]] = {rule: [] for rule in measured}
    for replicate in range(REPLICATES):
        for rule, of_rule in measured.items():
            resampled = [
                m.compute_rates(draw_classes(m.scores.shape[1], 1000 * replicate + i, 1)[0])
                for i, m in enumerate(of_rule)
            ]
            drawn[rule].append(np.mean(resampled, axis=0))
    for rule, values in rates.items():
        cells = [f"{values[0]:.3f}"]
        for k in range(1, len(values)):
            ratios = np.array(drawn[rule])[:, k] / np.maximum(np.array(drawn["nearest"])[:, k], 1e-9)
            low, high = np.quantile(ratios, [0.025, 0.975])
            ratio = (
                ""
                if rule == "nearest"
                else f" ({values[k] / rates['nearest'][k]:.2f} x, {low:.2f}-{high:.2f})"
            )
            cells.append(f"{values[k]:.3f}{ratio}")
        label = f"{rule} ({taken} of {n} draws)" if rule == "auto" else rule
        print(f"| {name} | {references or 'half'} | {label} | {' | '.join(cells)} |", flush=True)


# -- do thresholds hold? --------------------------------------------------------------------------------
def simulate(pool: Executor, law: Law, aggregate: Aggregate, draws: range) -> None:
    """Print how often the FPIR of a proven threshold is within the target on newly drawn classes.

    The laws, the size of a draw, the target and the galleries are those of ``benchmarks.statistics``.
    """
    cases = [Rung(TARGET, size, "proven") for size in GALLERIES]
    reached = reach_rungs(pool, law, aggregate, CLASSES, cases, draws)
    for rung, rates in zip(cases, reached.T, strict=True):
        made = rates[np.isfinite(rates)] / rung.target
        row = [law.name, aggregate, rung.size, f"{len(made)} of {len(draws)}"]
        row += [format_fraction(float(np.mean(made <= 1)), len(made)), f"{np.median(made):.2f}"]
        print(f"| {' | '.join(map(str, row))} |", flush=True)


def simulate_estimates(
    pool: Executor, law: Law, aggregate: Aggregate, draws: range, numbers: list[int]
) -> None:
    """Print how often the FPIR of an estimated threshold is within a factor of two of the target."""
    for classes in numbers:
        cases = [Rung(target, classes, "estimated") for target in ESTIMATED_TARGETS]
        reached = reach_rungs(pool, law, aggregate, classes, cases, draws)
        for rung, rates in zip(cases, reached.T, strict=True):
            made = rates[np.isfinite(rates)]
            print_reached(f"{law.name} | {aggregate} | {classes}", rung.target, made / rung.target)


class Rung(NamedTuple):
    """A threshold to choose: for which FPIR, in a gallery of how many classes, proven or estimated."""

    target: float
    size: int
    status: Status


def reach_rungs(
    pool: Executor, law: Law, aggregate: Aggregate, classes: int, rungs: list[Rung], draws: range
) -> Float64s:
    """float64 [draws, rungs]: the FPIR over new classes of thresholds chosen on so many; NaN if refused."""
    chosen = pool.map(partial(choose_and_judge, law, aggregate, classes, rungs), draws)
    return np.array(list(track(chosen, f"{law.name}, {aggregate}, {classes} classes", len(draws))))


def choose_and_judge(
    law: Law, aggregate: Aggregate, classes: int, rungs: list[Rung], seed: int
) -> list[float]:
    """Thresholds chosen on one draw, judged by two populations of their own: queries and a gallery.

    What these bring to the variance of the logarithm is 0.06 of what a draw of CLASSES does.
    """
    sources = CalibrationSources(law.items(seed, classes))
    calibrator = Calibrator.prepare(sources, "cosine", aggregate, "m", seed=seed)
    scorer = calibrator.chosen.scorer if aggregate == "evidence" else None
    assert scorer is None or isinstance(scorer, EvidenceScorer)
    queries = law.items(2**31 + 2 * seed, POPULATION)
    queries = queries.subset(np.arange(0, len(queries), EACH))
    gallery = law.items(2**31 + 2 * seed + 1, POPULATION)
    gallery = EmbeddingSet(gallery.vectors, np.char.add("g", gallery.labels), gallery.ids)
    pairs = arrange(queries, gallery=gallery, scorer=scorer)
    scores = (score_nearest_trials(pairs) if scorer is None else score_evidence_trials(pairs)).other
    reached = []
    for rung in rungs:
        size = GallerySize(items=rung.size * EACH, classes=rung.size)
        target = Target(kind="fpir", value=rung.target, aggregate=aggregate, gallery=size)
        data = calibrator.data.with_target(target)
        try:
            threshold = select_threshold(data, rung.status, calibrator.search).threshold
        except CalibrationRefused:
            reached.append(np.nan)
            continue
        matched = accepts(scores, threshold).mean(axis=1)
        reached.append(float(1 - np.mean((1 - matched) ** rung.size)))
    return reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--runs", nargs="*", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--references", type=int, nargs="*", default=[])
    parser.add_argument("--grocery", action="store_true")
    parser.add_argument("--simulate", type=int, default=0)
    parser.add_argument("--estimated", action="store_true")
    parser.add_argument("--classes", type=int, nargs="*", default=list(ESTIMATED_CLASSES))
    parser.add_argument("--laws", type=int, nargs="*", default=list(range(len(LAWS))))
    parser.add_argument("--aggregates", nargs="*", default=["evidence"], choices=AGGREGATES)
    parser.add_argument("--first", type=int, default=0, help="seed of the first draw")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    if given.simulate:
        head = ["distribution", "score", "gallery", "proven", "within target", "median of target"]
        if given.estimated:
            head = ["distribution", "score", "classes", "FPIR", "within a factor of two", "median", "10-90 %"]
        print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
        draws = range(given.first, given.first + given.simulate)
        with ProcessPoolExecutor(given.workers) as pool:
            for law in (LAWS[number] for number in given.laws):
                for aggregate in given.aggregates:
                    if given.estimated:
                        simulate_estimates(pool, law, aggregate, draws, given.classes)
                    else:
                        simulate(pool, law, aggregate, draws)
        return
    head = ["data", "references", "score", "recall@1"]
    head += [f"FNIR at FPIR {100 * fpir:g} %" for fpir in FPIRS]
    head += [f"at {100 * fpir:g} % of real unknown queries" for fpir in FPIRS]
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    if not given.runs and not given.grocery:
        for references in given.references or (30, 10, 3, 1):
            compare("CLINC150", (split_clinc(seed) for seed in range(given.draws)), references)
    for run in given.runs:
        name, folder = run.split("=", 1)
        for references in given.references or (10, 5, 1):
            cases = (split_run(Path(folder), seed) for seed in range(given.draws))
            compare(name, cases, references or None)
    if given.grocery:
        for references in given.references or (0, 5):
            compare("Grocery", (split_grocery(seed) for seed in range(given.draws)), references or None)


if __name__ == "__main__":
    main()
