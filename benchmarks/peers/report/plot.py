"""The ratios of one job as bars: Limen's answers a second over those of each peer, with their range."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

from benchmarks.peers.jobs import CASES, JOBS
from benchmarks.peers.registry import ENGINES
from benchmarks.peers.report.figures import collect, compare
from benchmarks.peers.results import Record


def draw_ratios(records: Sequence[Record], size: str, out: Path) -> bool:
    """Write a picture of the search job; whether there was anything to draw."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    peers = [
        name
        for name, entry in ENGINES.items()
        if not entry.is_ours and collect(records, "search", size, name, next(iter(CASES)), "rate")
    ]
    if not peers:
        return False
    figure, axes = pyplot.subplots(figsize=(9, 4.5), layout="constrained")
    width = 0.8 / len(CASES)
    for number, case in enumerate(CASES):
        ratios = [
            compare(
                collect(records, "search", size, "limen", case, "rate"),
                collect(records, "search", size, name, case, "rate"),
            )
            for name in peers
        ]
        at = [place + (number - (len(CASES) - 1) / 2) * width for place in range(len(peers))]
        drawn = [(x, ratio) for x, ratio in zip(at, ratios, strict=True) if ratio is not None]
        axes.bar(
            [x for x, _ in drawn],
            [ratio.median - 1 for _, ratio in drawn],
            width,
            bottom=1,
            yerr=[
                [ratio.median - ratio.least for _, ratio in drawn],
                [ratio.most - ratio.median for _, ratio in drawn],
            ],
            label=case,
        )
    axes.axhline(1, color="black", linewidth=1)
    axes.set_yscale("log")
    axes.set_xticks(range(len(peers)), [fill(ENGINES[name].title, 14) for name in peers])
    axes.set_ylabel("Limen (JSON over HTTP) / peer, queries a second")
    axes.set_title(f"{JOBS['search'].title}, {size}, recall@10 >= 0.95")
    axes.legend(fontsize="small")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)
    pyplot.close(figure)
    return True
