"""What the programs of ``first_decision`` get: training data, and queries whose truth stays here."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

Truth = list[str | None]  # by query, in the order of its name or line; None: of a class that nobody was shown


def write_grocery(datasets: Path, folder: Path) -> Truth:
    """``photos/PRODUCT/*.jpg``, but for each fourth product, and ``queries/*.jpg``: each eighth photo of all.

    Both are of the list train: photos of other days are beyond MobileNetV2 at any threshold.
    """
    with zipfile.ZipFile(datasets / "grocery_store" / "images_88px.zip") as archive:
        archive.extractall(folder / "all")
    by_product: dict[str, list[Path]] = {}
    for file in sorted((folder / "all" / "train").rglob("*.jpg")):
        by_product.setdefault(file.parent.name, []).append(file)
    (folder / "queries").mkdir()
    truth: Truth = []
    for number, (product, files) in enumerate(sorted(by_product.items())):
        is_known = number % 4 != 3
        for file in files[::8]:
            file.rename(folder / "queries" / f"{len(truth):03}.jpg")
            truth.append(product if is_known else None)
        if is_known:
            (folder / "photos" / product).mkdir(parents=True)
            for file in files:
                if file.exists():
                    file.rename(folder / "photos" / product / file.name)
    shutil.rmtree(folder / "all")
    return truth


def write_clinc150(datasets: Path, folder: Path) -> Truth:
    """``texts.jsonl`` and ``queries.jsonl``: texts, and their labels in the former; "oos" is of no intent."""
    parts = json.loads((datasets / "clinc150" / "data_full.json").read_text())
    shown = [{"text": text, "label": label} for text, label in parts["train"] + parts["oos_train"]]
    asked = parts["test"][::45] + parts["oos_test"][::10]
    _write_lines(folder / "texts.jsonl", shown)
    _write_lines(folder / "queries.jsonl", [{"text": text} for text, _ in asked])
    return [None if label == "oos" else label for _, label in asked]


def _write_lines(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def judge(answers: Truth, truth: Truth) -> dict[str, float]:
    """Fractions of the queries of known classes answered right, and of unknown ones that were matched."""
    known = [answer == label for answer, label in zip(answers, truth, strict=True) if label is not None]
    matched = [answer is not None for answer, label in zip(answers, truth, strict=True) if label is None]
    return {"right": sum(known) / len(known), "false": sum(matched) / len(matched)}
