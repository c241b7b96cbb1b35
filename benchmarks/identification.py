"""Who is this? Class evidence beside the nearest item: missed known queries at the same false matches.

    python -m benchmarks.identification [--draws 5] [--runs NAME=FOLDER ...] [--simulate 60]

CLINC150 sentence vectors (a third of the intents each for covariances, for weights and to test on, drawn
again each time; out-of-scope texts as real unknown queries) and runs given by name (training, validation and
test items of their embeddings). Prints FNIR at hindsight thresholds with FPIR 1 % and 5 %, each query in turn
known and unknown, recall@1, and the ratio to the nearest item with its interval over resampled test classes.
``auto`` is what ``limen calibrate --aggregate auto`` decides by. Grocery photos need Pillow and onnxruntime.

``--simulate N`` draws N sets of 120 classes, proves thresholds for galleries of 30 and 120 classes on each,
and counts how often their FPIR on new classes lies within the target.
"""

from __future__ import annotations

import argparse
import io
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from api_schemas.operating_point import Aggregate, GallerySize, Target
from benchmarks.statistics import CLASSES, EACH, GALLERIES, LAWS, TARGET, Law
from common.array_types import Float32s, Float64s, Int64s
from common.errors import CalibrationRefused
from decision.class_evidence import EvidenceScorer
from decision.scorers import accepts
from embeddings.embedding_set import EmbeddingSet, normalise_rows
from embeddings.files import read_embeddings
from evaluation.calibration.calibrate import Calibrator
from evaluation.calibration.class_evidence.choose_evidence import choose_evidence
from evaluation.calibration.class_evidence.evidence_trials import score_evidence_trials
from evaluation.calibration.nearest_scores import score_nearest_trials
from evaluation.calibration.sets.sources import CalibrationSources
from evaluation.metrics.class_bootstrap import draw_classes
from evaluation.pairs.pairs import Pairs, arrange

ROOT = Path(__file__).resolve().parents[1]
FPIRS = (0.01, 0.05)
PROBES = 40  # of a class
REPLICATES = 200
MOST_CLASSES = 300
POPULATION = 3000  # new classes that thresholds are judged by
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


# -- do proven thresholds hold? -------------------------------------------------------------------------
def simulate(law: Law, draws: int, aggregate: Aggregate) -> None:
    """Print how often the FPIR of a proven threshold is within the target on newly drawn classes.

    The laws, the size of a draw, the target and the galleries are those of ``benchmarks.statistics``.
    """
    queries = law.items(2**31, POPULATION)
    queries = queries.subset(np.arange(0, len(queries), EACH))
    gallery = law.items(2**31 + 1, POPULATION)
    gallery = EmbeddingSet(gallery.vectors, np.char.add("g", gallery.labels), gallery.ids)
    reached: dict[int, list[float]] = {size: [] for size in GALLERIES}
    for seed in range(draws):
        sources = CalibrationSources(law.items(seed, CLASSES))
        calibrator = Calibrator.prepare(sources, "cosine", aggregate, "m", seed=seed)
        scorer = calibrator.chosen.scorer if aggregate == "evidence" else None
        assert scorer is None or isinstance(scorer, EvidenceScorer)
        pairs = arrange(queries, gallery=gallery, scorer=scorer)
        trials = score_nearest_trials(pairs) if scorer is None else score_evidence_trials(pairs)
        for size, rates in reached.items():
            wanted = GallerySize(items=size * EACH, classes=size)
            target = Target(kind="fpir", value=TARGET, aggregate=aggregate, gallery=wanted)
            try:
                threshold = calibrator.calibrate(target, "proven").point.threshold
            except CalibrationRefused:
                continue
            matched = accepts(trials.other, threshold).mean(axis=1)
            rates.append(float(1 - np.mean((1 - matched) ** size)))
    for size, rates in reached.items():
        within = 100 * float(np.mean(np.array(rates) <= TARGET)) if rates else 0.0
        median = float(np.median(rates)) / TARGET if rates else 0.0
        cells = [law.name, aggregate, size, f"{len(rates)} of {draws}", f"{within:.1f} %", f"{median:.2f}"]
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--runs", nargs="*", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--references", type=int, nargs="*", default=[])
    parser.add_argument("--grocery", action="store_true")
    parser.add_argument("--simulate", type=int, default=0)
    given = parser.parse_args()
    if given.simulate:
        head = ["distribution", "score", "gallery", "proven", "within target", "median of target"]
        print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
        for law in LAWS[:2]:
            for aggregate in AGGREGATES:
                simulate(law, given.simulate, aggregate)
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
