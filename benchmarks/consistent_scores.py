"""Cosine beside density scores on unseen classes: how evenly one threshold holds, and at what price.

CLINC150 sentence vectors (50 intents as cohort, 25 for fitting, 75 to measure on, 40 texts each, drawn
again for each seed; out-of-scope texts as unknown queries) and the run folders given as arguments
(training items as cohort, validation items for fitting, test items to measure on). Prints means over
seeds, and over all runs given, as Markdown.

    python -m benchmarks.consistent_scores --seeds 5 [RUN ...]
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from pathlib import Path

import numpy as np

from common.array_types import Bools, Float32s
from decision.scorers import CosineScorer, Scorer
from embeddings.embedding_set import EmbeddingSet
from embeddings.files import read_embeddings
from evaluation.calibration.fit_probability import fit_platt, fit_probability, measure_reliability
from evaluation.calibration.nearest_scores import sample_labelled_pairs
from evaluation.calibration.scores.conj_norm_score import fit_conj_norm
from evaluation.calibration.scores.density_score import DensityFitter, fit_csls, fit_logistic
from evaluation.metrics.opis import OpisSettings, measure_consistency
from evaluation.metrics.verification import compute_tar_at_far
from evaluation.pairs.pairs import arrange
from evaluation.pairs.sweep import sweep_pairs

ROOT = Path(__file__).resolve().parents[1]
Parts = tuple[EmbeddingSet, EmbeddingSet, EmbeddingSet, EmbeddingSet | None]
FIGURES = {
    "OPIS deb.": "opis",
    "log-FAR deb.": "log_far",
    "log-FAR deb. 1e-3..1e-2": "log_far_low",
    "10%-OPIS": "epsilon",
    "FRR at FAR 1 %": "frr_1",
    "FRR at FAR 0.1 %": "frr_01",
    "FNIR at FPIR 1 %": "fnir_1",
    "FNIR at FPIR 5 %": "fnir_5",
    "log loss": "log_loss",
    "ECE": "ece",
}


def split_clinc(seed: int) -> Parts:
    """Cohort, fit, test and unknown texts of one random split of the intents."""
    folder = Path(os.environ.get("LIMEN_DATASETS", ROOT.parent / "shared" / "data"))
    with np.load(folder / "clinc150" / "clinc150_minilm.npz") as archive:
        vectors, labels = archive["embeddings"].astype(np.float32), archive["labels"]
    rng = np.random.default_rng(seed)
    intents = rng.permutation(np.unique(labels[labels != "oos"]))
    parts = []
    for chosen in (intents[:50], intents[50:75], intents[75:]):
        rows = np.concatenate([rng.permutation(np.flatnonzero(labels == intent))[:40] for intent in chosen])
        parts.append(EmbeddingSet.from_arrays(vectors[rows], labels[rows]))
    outside = labels == "oos"
    return parts[0], parts[1], parts[2], EmbeddingSet.from_arrays(vectors[outside], labels[outside])


def split_run(run: Path) -> Parts:
    """Cohort, fit and test items of a run; a tenth of the test classes become unknown queries."""
    cohort, fit, test = (
        read_embeddings(run / "embeddings" / f"{part}.npz") for part in ("train", "validation", "test")
    )
    classes = np.random.default_rng(0).permutation(test.classes)
    unknown = test.select_classes(classes[: len(classes) // 10])
    return (
        DensityFitter().draw_cohort(cohort, 0),
        fit,
        test.select_classes(classes[len(classes) // 10 :]),
        unknown,
    )


def measure(
    scorer: Scorer, fit: EmbeddingSet, test: EmbeddingSet, unknown: EmbeddingSet | None
) -> dict[str, float]:
    """Every figure of one score on the test classes."""
    pairs = arrange(test, scorer=scorer)
    figures: dict[str, float] = {}
    for name, far in (("log_far", (0.01, 0.1)), ("log_far_low", (0.001, 0.01))):
        settings = OpisSettings(far=far)
        sweep = sweep_pairs(pairs, deepest_far=far[1])
        accepted = compute_tar_at_far(sweep)
        consistency, _ = measure_consistency(sweep, settings, 0)
        figures[name] = consistency.opis_logfar_debiased or 0.0
        if name == "log_far":
            figures["opis"] = consistency.opis_debiased or 0.0
            figures["epsilon"] = consistency.epsilon_opis["0.1"] or 0.0
    for name, key in (("frr_1", "0.01"), ("frr_01", "0.001")):
        figures[name] = 1 - (accepted[key] or 0.0)
    if unknown is not None:
        figures |= _measure_identification(scorer, test, unknown)
    known = sample_labelled_pairs(arrange(fit, scorer=scorer), 0)
    held_out = sample_labelled_pairs(pairs, 0)
    chosen = measure_reliability(held_out, fit_probability(known))
    figures |= {"log_loss": chosen.log_loss, "ece": chosen.ece}
    platt = fit_platt(
        known.scores[known.genuine].astype(np.float32), known.scores[~known.genuine].astype(np.float32)
    )
    figures["platt_log_loss"] = measure_reliability(held_out, platt).log_loss
    return figures


def _measure_identification(scorer: Scorer, test: EmbeddingSet, unknown: EmbeddingSet) -> dict[str, float]:
    """Half of each class is the gallery, the other half the known queries."""
    order = np.random.default_rng(0).permutation(len(test))
    rank = np.empty(len(test), dtype=np.int64)
    for code in range(len(test.classes)):
        own = order[test.codes[order] == code]
        rank[own] = np.arange(len(own))
    gallery, known = test.subset(rank % 2 == 0), test.subset(rank % 2 == 1)
    best, right = _find_best(scorer, known, gallery)
    best_of_unknown = -np.sort(-_find_best(scorer, unknown, gallery)[0])
    return {
        name: 1 - float(np.mean(right & (best > best_of_unknown[int(fpir * len(best_of_unknown))])))
        for name, fpir in (("fnir_1", 0.01), ("fnir_5", 0.05))
    }


def _find_best(scorer: Scorer, queries: EmbeddingSet, gallery: EmbeddingSet) -> tuple[Float32s, Bools]:
    scores = scorer(
        (queries.vectors @ gallery.vectors.T).clip(-1, 1),
        scorer.compute_densities(queries.vectors)[:, None],
        scorer.compute_densities(gallery.vectors)[None, :],
    )
    best = scores.argmax(axis=1)
    return scores.max(axis=1), gallery.labels[best] == queries.labels


def compare(name: str, cases: list[Parts]) -> None:
    """Print one table: means over the cases."""
    measured: dict[str, list[dict[str, float]]] = defaultdict(list)
    for cohort, fit, test, unknown in cases:
        scorers: dict[str, Scorer] = {
            "cosine": CosineScorer(),
            "csls": fit_csls(cohort),
            "conjnorm, norm 2": fit_conj_norm(fit, cohort, 2.0),
            "conjnorm, norm 2.5": fit_conj_norm(fit, cohort, 2.5),
            "logistic": fit_logistic(fit, cohort),
        }
        for kind, scorer in scorers.items():
            measured[kind].append(measure(scorer, fit, test, unknown))
    print(f"\n{name}, {len(cases)} seeds or runs\n")
    print(f"| score | {' | '.join(FIGURES)} |\n|{' --- |' * (len(FIGURES) + 1)}")
    for kind, figures in measured.items():
        means = [np.mean([case.get(key, np.nan) for case in figures]) for key in FIGURES.values()]
        print(f"| {kind} | {' | '.join(f'{mean:.3g}' for mean in means)} |")
    platt = np.mean([case["platt_log_loss"] for case in measured["cosine"]])
    print(f"\nPlatt on cosine: held-out log loss {platt:.4f}.", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.seeds:
        compare("CLINC150", [split_clinc(seed) for seed in range(arguments.seeds)])
    if arguments.runs:
        compare("Runs", [split_run(run) for run in arguments.runs])


if __name__ == "__main__":
    main()
