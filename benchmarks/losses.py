"""Losses against pytorch-metric-learning's nearest, forward and backward, in the same run.

    python -m benchmarks.losses [--rounds 30] [--partial-fc-classes 1000000] [--skip-partial-fc]

Bars: at most 1.0 x the library where both exist (alternating, the median of the ratios within a round; 5 %
of noise is allowed: where ours is the library's own class, the ratio is 1 by construction); Metrix of
embeddings with 3 hardest negatives at most 1.5 x its clean loss; mean-field and proxy losses linear in
batch x classes; z_loss with 100,000 classes at most 1.5 x with 1,000; Partial FC with a million classes at
128-d, 10 % sampled, under 6 GiB. Exit code 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from pytorch_metric_learning import losses as library
from torch import Tensor, nn

from api_schemas.yaml_config import NamedPart
from training.losses import LOSSES, Loss, PartialFC, TrainingClasses, build_loss
from training.losses.pml_losses import PmlLoss
from training.objective.mixup import build_mixup

N, DIMENSION, PER_CLASS = 512, 512, 4
CLASSES = N // PER_CLASS
NOISE = 1.05
GIB = 2**30

SAME: dict[str, dict[str, Any]] = {
    "soft_triple": {"tau": 0.0},
    "threshold_consistent_margin": {"margin_plus": 0.9, "margin_minus": 0.5},
}
"""Parameters with which a loss does what its peer does."""

PEERS: dict[str, Callable[[], nn.Module]] = {
    "triplet": library.TripletMarginLoss,
    "circle": library.CircleLoss,
    "contrastive": library.ContrastiveLoss,
    "multi_similarity": library.MultiSimilarityLoss,
    "lifted_structure": library.GeneralizedLiftedStructureLoss,
    "threshold_consistent_margin": library.ThresholdConsistentMarginLoss,
    "sup_con": library.SupConLoss,
    "proxy_nca": lambda: library.ProxyNCALoss(CLASSES, DIMENSION),
    "proxy_nca_plus_plus": lambda: library.ProxyNCALoss(CLASSES, DIMENSION, softmax_scale=9),
    "proxy_anchor": lambda: library.ProxyAnchorLoss(CLASSES, DIMENSION),
    "soft_triple": lambda: library.SoftTripleLoss(CLASSES, DIMENSION),
    "normalized_softmax": lambda: library.NormalizedSoftmaxLoss(CLASSES, DIMENSION),
    "arcface": lambda: library.ArcFaceLoss(CLASSES, DIMENSION),
    "cosface": lambda: library.CosFaceLoss(CLASSES, DIMENSION),
}
MIXED = [name for name in LOSSES if LOSSES[name].roles]
LINEAR = ("mean_field_contrastive", "mean_field_class_wise_multi_similarity", "proxy_anchor", "proxy_nca")


def build_ours(name: str, classes: int = CLASSES, **parameters: Any) -> Any:
    """A registered loss for the benchmark's batch."""
    return build_loss(
        NamedPart(name=name, **parameters),
        classes=TrainingClasses.build_placeholder(classes),
        embedding_dim=DIMENSION,
    )


def make_batch(n: int = N) -> tuple[Tensor, Tensor]:
    """Unit rows that lie about their class means, as in the middle of training."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) // PER_CLASS
    means = torch.randn(n // PER_CLASS, DIMENSION, generator=generator)
    items = means[labels] + torch.randn(n, DIMENSION, generator=generator)
    return nn.functional.normalize(items, dim=1), labels


def time_step(loss: nn.Module, items: Tensor, labels: Tensor) -> float:
    """Seconds of one forward and backward pass, and of what the loss then updates itself."""
    leaf = items.clone().requires_grad_()
    start = time.perf_counter()
    loss(leaf, labels).backward()
    if isinstance(loss, Loss):
        loss.end_step()
    return time.perf_counter() - start


def measure_milliseconds(losses: list[nn.Module], rounds: int, items: Tensor, labels: Tensor) -> list[float]:
    """Median of each; the second and later ones as median ratios to the first within a round.

    What else runs on the machine slows both of a round, so their ratio holds where times do not; the order
    is reversed every time, so neither always comes second.
    """
    for loss in losses * 3:
        time_step(loss, items, labels)
    table = []
    for number in range(rounds):
        order = range(len(losses)) if number % 2 else reversed(range(len(losses)))
        times = {position: time_step(losses[position], items, labels) for position in order}
        table.append([times[position] for position in range(len(losses))])
    first = 1000 * statistics.median(row[0] for row in table)
    return [
        first * statistics.median(row[position] / row[0] for row in table) for position in range(len(losses))
    ]


def compare_with_library(rounds: int) -> bool:
    """Every loss that is not the library's own, and its main ones."""
    items, labels = make_batch()
    good = True
    print(f"forward + backward, {N} x {DIMENSION}-d, {CLASSES} classes, {torch.get_num_threads()} threads")
    print(f"{'loss':<42}{'ours ms':>9}{'library ms':>12}{'ratio':>8}")
    for name in [name for name in LOSSES if name in PEERS or not issubclass(LOSSES[name], PmlLoss)]:
        loss = build_ours(name, **SAME[name]) if name in SAME else _build_stateless(name)
        if name in PEERS:
            ours, theirs = measure_milliseconds([loss, PEERS[name]()], rounds, items, labels)
            ratio = ours / theirs
            good &= ratio <= NOISE
            print(f"{name:<42}{ours:>9.2f}{theirs:>12.2f}{ratio:>8.2f}{'' if ratio <= NOISE else '  MISSED'}")
        else:
            (ours,) = measure_milliseconds([loss], max(3, rounds // 3), items, labels)
            print(f"{name:<42}{ours:>9.2f}{'-':>12}{'-':>8}")
    return good


def _build_stateless(name: str) -> Any:
    return build_ours(name, lr=0.0) if name == "partial_fc" else build_ours(name)


def compare_mixed_with_clean(rounds: int) -> bool:
    """Metrix of embeddings, three hardest negatives, both kinds, against its clean loss."""
    items, labels = make_batch()
    good = True
    print(f"\n{'metrix of':<42}{'mixed ms':>9}{'clean ms':>12}{'ratio':>8}")
    for name in MIXED:
        clean = build_ours(name)
        mixed = build_mixup(NamedPart(name="metrix", hardest=3), clean)
        both, alone = measure_milliseconds([mixed, clean], rounds, items, labels)
        good &= both / alone <= 1.5
        missed = "" if both / alone <= 1.5 else "  MISSED"
        print(f"{name:<42}{both:>9.2f}{alone:>12.2f}{both / alone:>8.2f}{missed}")
    return good


def check_linear_cost(rounds: int) -> bool:
    """Four times the classes, or four times the batch, must cost about four times as much, not sixteen."""
    good = True
    print(f"\n{'cost of 4 x':<42}{'classes':>9}{'batch':>12}")
    for name in LINEAR:
        few, many = build_ours(name, 2_000), build_ours(name, 8_000)
        items, labels = make_batch()
        base, more = measure_milliseconds([few, many], max(3, rounds // 3), items, labels)
        (larger,) = measure_milliseconds([few], max(3, rounds // 3), *make_batch(4 * N))
        good &= max(more, larger) / base <= 6
        print(f"{name:<42}{more / base:>9.2f}{larger / base:>12.2f}")
    return good


def check_cost_of_z_loss(rounds: int, few: int = 1_000, many: int = 100_000) -> bool:
    """A hundred times the classes must cost nothing; all outputs, computed plainly, cost a hundred times."""

    def compute_plainly(items: Tensor, labels: Tensor) -> Tensor:
        outputs = items @ weight.T
        centred = outputs - outputs.mean(1, keepdim=True)
        z = centred.gather(1, labels[:, None])[:, 0] / (centred.square().mean(1) + 1e-12).sqrt()
        return nn.functional.softplus(-z).mean()

    items, labels = make_batch()
    small, large = build_ours("z_loss", few), build_ours("z_loss", many)
    base, more = measure_milliseconds([small, large], rounds, items, labels)
    weight = nn.Parameter(large.class_vectors.clone())
    start = time.process_time()
    compute_plainly(items, labels).backward()
    plain = 1000 * (time.process_time() - start)
    good = more / base <= 1.5
    print(
        f"\nz_loss, {few:,} and {many:,} classes x {DIMENSION}-d: {base:.1f} and {more:.1f} ms, ratio ",
        end="",
    )
    print(f"{more / base:.2f} (bar 1.5){'' if good else '  MISSED'}; all outputs plainly {plain:.0f} ms")
    return good


def measure_partial_fc(classes: int) -> bool:
    """Peak memory of a fresh process that takes five steps."""
    code = f"from benchmarks.losses import run_partial_fc_steps; run_partial_fc_steps({classes})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, peak = map(float, done.stdout.split())
    print(f"\npartial_fc, {classes:,} classes x 128-d, 10 % sampled, batch 256: ", end="")
    print(f"{seconds:.2f} s a step, peak {peak:.2f} GiB (bar 6)")
    return peak < 6


def run_partial_fc_steps(classes: int) -> None:
    """Run in a process of its own; prints seconds a step and peak GiB."""
    loss = PartialFC(num_classes=classes, embedding_dim=128)
    items = torch.randn(256, 128)
    labels = torch.randint(classes, (256,))
    time_step(loss, items, labels)
    seconds = statistics.median(time_step(loss, items, labels) for _ in range(4))
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB)


def main() -> None:
    """Run everything; exit code 1 when a bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--partial-fc-classes", type=int, default=1_000_000)
    parser.add_argument("--skip-partial-fc", action="store_true")
    arguments = parser.parse_args()
    results = [compare_with_library(arguments.rounds), compare_mixed_with_clean(arguments.rounds)]
    results += [check_linear_cost(arguments.rounds), check_cost_of_z_loss(arguments.rounds)]
    if not arguments.skip_partial_fc:
        results.append(measure_partial_fc(arguments.partial_fc_classes))
    sys.exit(not all(results))


if __name__ == "__main__":
    main()
