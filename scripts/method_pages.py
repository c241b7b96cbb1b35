"""Write docs/methods: one page per loss, from its docstring, and the index.

    python scripts/method_pages.py

What a docstring cannot know stands below the marker of each page and is kept: findings, tables.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from training.losses import LOSSES
from training.registry_listing import GIVEN

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "methods"
MARKER = "<!-- below: written by hand -->"
PAIRS, CLASSES = (
    "No class vectors to store: any number of classes.",
    "One vector per class to learn and store.",
)
WHEN = {
    "triplet": "A baseline with few assumptions. It lists all triplets: add a miner for large batches.",
    "circle": "Pairs of very different difficulty: each similarity sets its own pace.",
    "contrastive": "Two margins you want to see in the distances afterwards.",
    "multi_similarity": "The default: strong, with little to tune.",
    "binomial_deviance": "When scores should read as yes or no per pair, without competition between pairs.",
    "lifted_structure": "Triplet with all pairs of an anchor at once, without a miner.",
    "proxy_nca": "Fast convergence from small batches; prefer proxy_nca_plus_plus.",
    "proxy_nca_plus_plus": "Fast convergence from small batches, some thousands of classes.",
    "proxy_anchor": "Fast and strong on some hundreds to thousands of classes; robust to batch composition.",
    "soft_triple": "Classes of several looks (centres per class), a few hundred classes.",
    "threshold_consistent_margin": "Added to another loss when one threshold must hold for all classes.",
    "unpg": "Face-like data: softmax training whose negatives are too easy.",
    "mean_field_contrastive": "The contrastive loss at the cost of a proxy loss.",
    "mean_field_class_wise_multi_similarity": "Multi-similarity at the cost of a proxy loss.",
    "proto_triplet": "Few-shot training: episodes of few items of many classes.",
    "icnn": "Few-shot training by neighbourhoods, beside another loss.",
    "sface": "Wrong labels in the training data: it does not pull or push without end.",
    "normalized_softmax": "A strong, simple classifier; new classes are added by their mean.",
    "partial_fc": "More than some 100,000 classes.",
    "d_simplex": "Models that must stay comparable over versions; classes at most embedding_dim + 1.",
    "harmonic": "Class centres that can be read as prototypes.",
    "z_loss": "Outputs whose scale must not matter.",
    "center": "Added to a softmax for tighter classes. Never alone.",
    "sup_con": "Large batches with several positives per item.",
    "nt_xent": "One or two positives per item, e.g. two views.",
    "sbcl": "Class sizes that differ by an order of magnitude.",
    "hierarchical_contrastive": "Labels that form a tree.",
    "nd": "Added to another loss to follow a teacher, or for tighter classes. Never alone.",
    "angular": "Classes of very different extent: an angle, not a distance, is what counts.",
    "arcface": "Many classes with many items, faces above all; start it with a warm-up.",
    "cosface": "As arcface, easier to train.",
    "fast_ap": "When average precision is the figure that matters; wants large batches.",
    "intra_pair_variance": "Added to another loss to even out the pairs of a batch. Never alone.",
    "margin": "Pairs with one boundary for all; add the distance_weighted miner.",
    "nca": "Few items of each class and no wish for margins.",
    "pnp": "When the ranking above the positives is the figure that matters; cubic in the batch.",
    "sub_center_arcface": "As arcface, with noisy labels or classes of several looks.",
    "tuplet_margin": "Hard negatives of an anchor together, with an angular margin.",
}


def page(name: str) -> str:
    """The generated part of a page."""
    loss = LOSSES[name]
    body = re.sub(r"^([A-Z][A-Za-z ]+):(?=\s)", r"**\1.**", inspect.cleandoc(loss.__doc__ or ""), flags=re.M)
    settings = [
        f"| `{key}` | `{parameter.default}` |"
        for key, parameter in inspect.signature(loss).parameters.items()
        if key not in GIVEN
    ]
    rows = ["| parameter | default |", "| --- | --- |", *settings] if settings else ["It has no parameters."]
    vectors = CLASSES if "num_classes" in inspect.signature(loss).parameters else PAIRS
    mixed = "[Metrix](metrix.md) fits it." if loss.roles else "[Metrix](metrix.md) does not fit it."
    lines = [
        f"# {name}",
        "",
        f"*{loss.paper}*",
        "",
        body,
        "",
        f"**When to use.** {WHEN[name]} {vectors} {mixed}",
        "",
    ]
    lines += ["```yaml", f"loss: {{name: {name}}}", "```", "", *rows, "", MARKER]
    return "\n".join(lines)


def index() -> str:
    """All methods, one line each."""
    lines = ["# Methods", "", "| loss | paper | when |", "| --- | --- | --- |"]
    lines += [f"| [{name}]({name}.md) | {loss.paper} | {WHEN[name]} |" for name, loss in LOSSES.items()]
    lines += [
        "",
        "Beside the losses: [Metrix](metrix.md), [cross-batch memory](memory.md) and weighted sums.",
    ]
    lines += ["What each learns and costs: [results](results.md)."]
    return "\n".join(lines) + "\n"


def write() -> None:
    """Write every page, keeping what stands below its marker."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "index.md").write_text(index())
    for name in LOSSES:
        path = FOLDER / f"{name}.md"
        _, _, kept = path.read_text().partition(MARKER) if path.exists() else ("", "", "\n")
        path.write_text(page(name) + kept)


if __name__ == "__main__":
    write()
