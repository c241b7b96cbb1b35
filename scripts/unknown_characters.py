"""Rate of "unknown" decisions of a served bundle on images of classes that it does not hold.

python scripts/unknown_characters.py runs/omniglot

Leaves 100 test classes out of the gallery, exports and serves the bundle, and sends 500 images of the
left-out classes and 500 of the others (by id, so that none finds itself) to /v1/match.
"""

from __future__ import annotations

import argparse
import base64
import re
import subprocess
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from embeddings.embedding_set import EmbeddingSet
from limen.client import Client
from limen.pipeline.make_bundle import export_run
from training.run_folder.run_folder import Run

LEFT_OUT_CLASSES = 100
IMAGES = 500


def read_queries(run: Run, unknown: EmbeddingSet) -> list[dict[str, str]]:
    """The images of these items as data URIs, read from the run's test archive."""
    with zipfile.ZipFile(run.config.data.test_paths[0]) as archive:
        return [
            {"input": "data:image/png;base64," + base64.b64encode(archive.read(name)).decode()}
            for name in unknown.ids.tolist()
        ]


def main(path: Path, target_fpir: float) -> None:
    """Measure and print."""
    run = Run.open(path)
    test = run.load_embeddings("test")
    assert test is not None
    rng = np.random.default_rng(0)
    left_out = np.isin(test.labels, rng.choice(test.classes, LEFT_OUT_CLASSES, replace=False))
    gallery, unknown_items = test.subset(~left_out), test.subset(left_out)
    unknown = unknown_items.subset(rng.choice(len(unknown_items), IMAGES, replace=False))
    known = gallery.subset(rng.choice(len(gallery), IMAGES, replace=False))
    with tempfile.TemporaryDirectory() as folder:
        export_run(run, Path(folder) / "bundle", gallery=gallery, targets={"fpir": target_fpir})
        command = ["limen", "serve", f"{folder}/bundle", "--port", "0"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
            assert server.stderr is not None
            address = next(
                match[0] for line in server.stderr if (match := re.search(r"http://127\.0\.0\.1:\d+", line))
            )
            next(line for line in server.stderr if '"ready"' in line)
            try:
                with Client(address) as client:
                    answers = client.match(read_queries(run, unknown)).results
                    of_known = client.match([{"id": name} for name in known.ids.tolist()]).results
            finally:
                server.terminate()
                server.stderr.close()
    fraction_unknown = np.mean([answer.decision == "unknown" for answer in answers])
    fraction_correct = np.mean(
        [a.decision == "match" and a.label == b for a, b in zip(of_known, known.labels, strict=True)]
    )
    print(
        f"gallery {len(gallery)} items of {len(gallery.classes)} classes, "
        f"FPIR {100 * target_fpir:g} %, threshold {answers[0].threshold:.4f}"
    )
    print(f"unknown decided: {100 * fraction_unknown:.1f} % of {IMAGES} images of {LEFT_OUT_CLASSES} classes")
    print(f"known queries answered correctly: {100 * fraction_correct:.1f} %")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--target-fpir", type=float, default=0.01)
    given = parser.parse_args()
    main(given.run, given.target_fpir)
