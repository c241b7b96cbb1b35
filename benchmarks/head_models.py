"""Linear heads on CLINC150's sentence vectors that follow an older head, or come in several sizes.

    python -m benchmarks.head_models [--seeds 3] [--steps 300]

Without the trainer, in seconds of processor time: an old head on 30 intents, new ones on 60, batches of 32
intents of 4, AdamW; 20 sentences of each of 75 unseen intents. Means over seeds, and the mean difference from
the first row with its 95 % interval by Student's t. `benchmarks.followed_models` does the same on images.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from api_schemas.yaml_config import NamedPart
from benchmarks.consistent_losses import compute_interval
from training.losses import Loss, TrainingClasses, build_loss

SIZES = (16, 32, 64, 128)
EACH = 20
Figures = dict[str, float]


def load_parts(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training vectors of 60 intents and their codes, the first 30 of which are old; those to test."""
    source = Path(os.environ.get("LIMEN_DATASETS", "../shared/data")) / "clinc150" / "clinc150_minilm.npz"
    with np.load(source) as archive:
        vectors, labels = archive["embeddings"].astype(np.float32), archive["labels"]
    order = np.random.default_rng(seed).permutation(np.unique(labels[labels != "oos"]))
    code_of = {label: code for code, label in enumerate(order.tolist())}
    codes = np.array([code_of.get(label, -1) for label in labels.tolist()])
    train = np.flatnonzero((codes >= 0) & (codes < 60))
    test = np.concatenate([np.flatnonzero(codes == code)[:EACH] for code in range(75, 150)])
    parts = (vectors[train], codes[train], vectors[test], codes[test])
    a, b, c, d = (torch.from_numpy(part) for part in parts)
    return a, b, c, d


def train_head(
    vectors: Tensor,
    codes: Tensor,
    losses: list[tuple[float, Loss]],
    head: nn.Linear,
    steps: int,
    seed: int,
    old: Tensor | None = None,
    sizes: tuple[int, ...] = (),
) -> nn.Linear:
    """The head after some steps; losses that follow a teacher see the old vectors of the items.

    Args:
        sizes: lengths on which the first loss is computed too.
    """
    random = np.random.default_rng(seed)
    rows_of = [np.flatnonzero(codes.numpy() == code) for code in range(int(codes.max()) + 1)]
    own = [weight for _, loss in losses for weight in loss.parameters()]
    optimizer = torch.optim.AdamW([{"params": head.parameters(), "lr": 1e-3}, {"params": own, "lr": 1e-2}])
    for _ in range(steps):
        drawn = random.permutation(len(rows_of))[:32]
        rows = np.concatenate([random.choice(rows_of[code], 4, replace=False) for code in drawn])
        outputs, labels = head(vectors[rows]), codes[rows]
        unit, total = F.normalize(outputs, dim=1), outputs.new_zeros(())
        for weight, loss in losses:
            if loss.follows_teacher and old is not None:
                total = total + weight * loss(outputs, labels, None, old[rows], labels)
            else:
                total = total + weight * loss(unit, labels)
        for size in sizes:
            total = total + losses[0][1](F.normalize(outputs[:, :size], dim=1), labels)
        optimizer.zero_grad()
        (total / (1 + len(sizes))).backward()
        optimizer.step()
    return head


@torch.no_grad()
def embed(head: nn.Linear, vectors: Tensor, size: int | None = None) -> Tensor:
    """Unit rows, of the first numbers where a size is given."""
    return F.normalize(head(vectors)[:, :size], dim=1)


def measure(queries: Tensor, gallery: Tensor, codes: Tensor) -> Figures:
    """recall@1, and FNIR where the FPIR is 5 %, each item left out of its own query."""
    scores = (queries @ gallery.T).fill_diagonal_(-2)
    same = codes[:, None] == codes
    own = scores.masked_fill(~same, -2).amax(1)
    other = scores.masked_fill(same, -2).amax(1)
    refused = other.sort(descending=True).values[int(0.05 * len(other))]
    right = own > other
    return {
        "recall@1": float(right.float().mean()),
        "FNIR": float(1 - (right & (own > refused)).float().mean()),
    }


def build_head(seed: int, size: int) -> nn.Linear:
    """A head from its seed."""
    torch.manual_seed(seed)
    return nn.Linear(384, size)


def make_loss(name: str, codes: Tensor, old: Tensor | None = None, **parameters: float) -> Loss:
    """A loss for the classes of these codes; class directions are those of the old vectors."""
    count = int(codes.max()) + 1
    directions = None
    if old is not None:
        directions = F.normalize(torch.zeros(count, old.shape[1]).index_add_(0, codes, old), dim=1)
    classes = TrainingClasses(tuple(map(str, range(count))), (1,) * count, ((),) * count, directions)
    size = 64 if old is None else old.shape[1]
    return build_loss(NamedPart(name=name, **parameters), classes=classes, embedding_dim=size)


def compare_heads(seed: int, steps: int) -> dict[str, Figures]:
    """New heads, and their queries against the old head's vectors of unseen intents."""
    vectors, codes, test, test_codes = load_parts(seed)
    known = codes < 30
    old_codes = codes[known]

    def train_old(name: str) -> nn.Linear:
        losses = [(1.0, make_loss(name, old_codes))]
        return train_head(vectors[known], old_codes, losses, build_head(seed, 64), steps, seed)

    olds = {name: train_old(name) for name in ("multi_similarity", "d_simplex")}
    rows: dict[str, tuple[str, list[tuple[float, str]], bool]] = {
        "trained anew": ("multi_similarity", [(1, "multi_similarity")], False),
        "from the old head": ("multi_similarity", [(1, "multi_similarity")], True),
        "+ backward_compatible": (
            "multi_similarity", [(1, "multi_similarity"), (1, "backward_compatible")], False,
        ),
        "+ 9 higher_order_compatibility": (
            "multi_similarity", [(1, "multi_similarity"), (9, "higher_order_compatibility")], False,
        ),
        "+ 9 higher_order_compatibility, from the old head": (
            "multi_similarity", [(1, "multi_similarity"), (9, "higher_order_compatibility")], True,
        ),
        "d_simplex, corners kept": ("d_simplex", [(1, "d_simplex")], False),
        "0.1 d_simplex + 0.9 higher_order_compatibility": (
            "d_simplex", [(0.1, "d_simplex"), (0.9, "higher_order_compatibility")], False,
        ),
    }  # fmt: skip
    figures = {}
    for name, (source, terms, starts) in rows.items():
        before = olds[source]
        old = embed(before, vectors)
        losses = [(weight, make_loss(term, codes, old)) for weight, term in terms]
        head = build_head(seed + 100, 64)
        if starts:
            head.load_state_dict(before.state_dict())
        train_head(vectors, codes, losses, head, steps, seed + 100, old)
        new, was = embed(head, test), embed(before, test)
        mixed, own, stays = (measure(*pair, test_codes) for pair in ((new, was), (new, new), (was, was)))
        figures[name] = {
            "recall@1 new, old": mixed["recall@1"],
            "old, old": stays["recall@1"],
            "new, new": own["recall@1"],
            "FNIR new, old": mixed["FNIR"],
            "FNIR old, old": stays["FNIR"],
        }
    return figures


def compare_sizes(seed: int, steps: int) -> dict[str, Figures]:
    """A head for each size, one for all, and the longest one cut."""
    vectors, codes, test, test_codes = load_parts(seed)

    def train_size(size: int, sizes: tuple[int, ...] = ()) -> nn.Linear:
        losses = [(1.0, make_loss("multi_similarity", codes))]
        return train_head(vectors, codes, losses, build_head(seed, size), steps, seed, sizes=sizes)

    alone = {size: train_size(size) for size in SIZES}
    nested = train_size(SIZES[-1], SIZES[:-1])
    figures = {}
    for size in SIZES:
        heads = {"trained alone": alone[size], "of one for all": nested, "cut from 128": alone[SIZES[-1]]}
        for name, head in heads.items():
            rows = embed(head, test, size)
            figures[f"{size} numbers, {name}"] = measure(rows, rows, test_codes)
    return figures


def format_table(by_seed: list[dict[str, Figures]]) -> str:
    """Markdown; differences are from the first row of a size, or of all."""
    names, keys = list(by_seed[0]), list(next(iter(by_seed[0].values())))
    lines = [f"| | {' | '.join(keys)} |", "| --- " * (1 + len(keys)) + "|"]
    for name in names:
        base = next(other for other in names if other.partition(",")[0] == name.partition(",")[0])
        base = base if "numbers" in name else names[0]
        cells = []
        for key in keys:
            cell = f"{statistics.fmean(rows[name][key] for rows in by_seed):.3f}"
            if name != base and len(by_seed) > 1:
                mean, half = compute_interval([rows[name][key] - rows[base][key] for rows in by_seed])
                cell += f" ({mean:+.3f} +- {half:.3f})"
            cells.append(cell)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    for compare in (compare_heads, compare_sizes):
        print(format_table([compare(seed, arguments.steps) for seed in range(arguments.seeds)]), flush=True)


if __name__ == "__main__":
    main()
