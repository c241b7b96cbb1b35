"""Write docs/methods: one page per loss, from its class, and the index.

    python scripts/method_pages.py

What stands below the marker of each page is written by hand and kept: findings, tables.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from training.losses import LOSSES
from training.registry import list_settings

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "methods"
MARKER = "<!-- below: written by hand -->"
PAIRS, CLASSES = (
    "No class vectors to store: any number of classes.",
    "One vector per class to learn and store.",
)


def render_page(name: str) -> str:
    """The generated part of a page."""
    loss = LOSSES[name]
    summary, _, rest = inspect.cleandoc(loss.__doc__ or "").partition("\n")
    body = summary + "\n" + re.sub(r"^([A-Z][A-Za-z ]+):(?=\s)", r"**\1.**", rest, flags=re.M)
    settings = [f"| `{key}` | `{default}` |" for key, default in list_settings(loss).items()]
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
        f"**When to use.** {loss.when} {vectors} {mixed}",
        "",
    ]
    lines += ["```yaml", f"loss: {{name: {name}}}", "```", "", *rows, "", MARKER]
    return "\n".join(lines)


def render_index() -> str:
    """All methods, one line each."""
    lines = ["# Methods", "", "| loss | paper | when |", "| --- | --- | --- |"]
    lines += [f"| [{name}]({name}.md) | {loss.paper} | {loss.when} |" for name, loss in LOSSES.items()]
    beside = "[Metrix](metrix.md), [cross-batch memory](memory.md), [mining](mining.md), weighted sums, "
    beside += "[several sizes](several_sizes.md), [queries and items of different kinds](two_towers.md) and "
    beside += "[optimisers](optimisers.md)"
    lines += ["", f"Beside the losses: {beside}."]
    lines += ["What each learns and costs: [results](results.md)."]
    return "\n".join(lines) + "\n"


def write_pages() -> None:
    """Write every page, keeping what stands below its marker."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "index.md").write_text(render_index())
    for name in LOSSES:
        path = FOLDER / f"{name}.md"
        _, _, kept = path.read_text().partition(MARKER) if path.exists() else ("", "", "\n")
        path.write_text(render_page(name) + kept)


if __name__ == "__main__":
    write_pages()
