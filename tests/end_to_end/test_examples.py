"""The three examples of docs/examples.md, line by line, on a small part of the data."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from embeddings.files import save_embeddings
from tests.conftest import ROOT
from tests.end_to_end.shell import run_shell
from tests.limen.conftest import make_classes
from tests.service.bundles import serve

SECTIONS = dict(
    re.findall(r"^## (\w+).*?\n(.*?)(?=^## |\Z)", (ROOT / "docs" / "examples.md").read_text(), re.M | re.S)
)
QUICK = {
    "omniglot": "schedule.epochs=2 model.widths=[8,16,16,16] data.image_size=16 sampler.batch_size=64",
    "clinc150-text": "schedule.epochs=12 model.width=64 data.text.length=128",
    "clinc150-vectors": "schedule.epochs=3",
    "head": "schedule.epochs=3",
}


@dataclass(frozen=True)
class Example:
    """A folder in which the examples can be typed, and what that gives."""

    folder: Path
    datasets: Path

    def run(self, script: str) -> str:
        """Run shell lines, those that train in small; returns what they print."""
        for name, overrides in QUICK.items():
            flags = " ".join(f"--set '{override}'" for override in overrides.split())
            script = re.sub(rf"(limen train (?:configs/)?{name}\.yaml)$", rf"\1 {flags}", script, flags=re.M)
        return run_shell(script, self.folder, LIMEN_DATASETS=str(self.datasets), PYTHONPATH=str(ROOT))

    def follow(self, section: str) -> tuple[str, str]:
        """Run a section; returns what its commands and what its query of the service printed."""
        said, answer, served = "", "", None
        for block in re.findall(r"```sh\n(.*?)```", SECTIONS[section], re.S):
            if "localhost:8000" in block:
                assert served is not None
                with serve(served) as address:
                    answer = self.run(re.sub(r"(http://)?localhost:8000", address, block))
            else:
                if command := re.search(r"^limen serve (\S+)\n", block, re.M):
                    served = self.folder / command[1]
                said += self.run(re.sub(r"^limen serve \S+\n", "", block, flags=re.M))
        return said, answer


@pytest.fixture
def example(tmp_path: Path) -> Example:
    for name in ("configs", "scripts"):
        (tmp_path / name).symlink_to(ROOT / name)
    return Example(tmp_path, tmp_path / "datasets")


def cut_omniglot(source: Path, target: Path) -> None:
    """Eight characters of each alphabet by eight drawers."""
    target.mkdir(parents=True)
    for part in ("images_background.zip", "images_evaluation.zip"):
        with zipfile.ZipFile(source / part) as archive, zipfile.ZipFile(target / part, "w") as part_archive:
            for name in archive.namelist():
                drawing = re.search(r"character(\d+)/\d+_(\d+)\.png$", name)
                if drawing and int(drawing[1]) <= 8 and int(drawing[2]) <= 8:
                    part_archive.writestr(name, archive.read(name))


def cut_clinc150(source: Path, target: Path, each: int) -> None:
    """Some texts of each intent and of the sentences out of scope, and as many of their vectors."""
    target.mkdir(parents=True)
    seen: Counter[str] = Counter()
    parts: dict[str, list[list[str]]] = json.loads((source / "data_full.json").read_text())
    for name, rows in parts.items():
        kept = []
        for text, label in rows:
            seen[label] += 1
            if seen[label] <= (100 if label == "oos" else each):
                kept.append([text, label])
        parts[name] = kept
    (target / "data_full.json").write_text(json.dumps(parts))
    with np.load(source / "clinc150_minilm.npz") as archive:
        labels = archive["labels"]
        rows = [
            np.flatnonzero(labels == label)[: 100 if label == "oos" else each] for label in np.unique(labels)
        ]
        chosen = np.concatenate(rows)
        kept_arrays = {name: archive[name][chosen] for name in archive.files}
    np.savez(target / "clinc150_minilm.npz", **kept_arrays)


@pytest.mark.skipif(shutil.which("curl") is None, reason="the example uses curl")
def test_images(example: Example, datasets: Path) -> None:
    cut_omniglot(datasets / "omniglot", example.datasets / "omniglot")
    with zipfile.ZipFile(example.datasets / "omniglot" / "images_evaluation.zip") as archive:
        (example.folder / "drawing.png").write_bytes(archive.read(archive.namelist()[0]))
        whose = str(Path(archive.namelist()[0]).parent)
    said, answer = example.follow("Images")
    assert "validation 384 items of 48 classes; test 1280 items of 160 classes" in said
    assert "recall@1" in said
    assert (example.folder / "report" / "report.html").is_file()
    # so little training names a quarter of new drawings rightly, but a drawing of the gallery is itself
    (result,) = json.loads(answer)["results"]
    assert (result["decision"], result["label"], result["reason"]) == ("match", whose, "copy")
    assert result["score"] >= result["threshold"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="the example uses curl")
def test_texts(example: Example, datasets: Path) -> None:
    cut_clinc150(datasets / "clinc150", example.datasets / "clinc150", each=20)
    said, answer = example.follow("Text")
    known, unknown = json.loads(answer)["results"]
    assert known["label"] in {"credit_score", "improve_credit_score"}
    assert (known["decision"] == "match") == (known["score"] >= known["threshold"])
    assert unknown["decision"] == "unknown"
    assert unknown["score"] < known["score"]
    assert said.count("who is this, of 75 classes (1,500 items)?") == 2  # by n-grams and by sentence vectors
    missed = [float(rate) for rate in re.findall(r"missed at FPIR 10 %\s+([\d.]+) %", said)]
    assert missed[1] < missed[0] < 90


def test_vectors(example: Example) -> None:
    save_embeddings(make_classes(120, 8, dim=96, spread=0.8), example.folder / "vectors.npz")
    said, answer = example.follow("Vectors")
    assert "train 576 items of 72 classes" in said
    assert "decision='match'" in answer
