"""Write CLINC150 in the forms that ``limen train`` and ``limen evaluate --unknown`` read.

    python scripts/clinc150.py [OUT]

From the data sets' folder (LIMEN_DATASETS): ``intents.jsonl`` and ``out_of_scope.jsonl`` (text, label), and
the sentence vectors of the same texts, ``intents.npz`` and ``out_of_scope.npz``; and ``pairs.jsonl``, each
sentence as a query whose item are the words of its intent ("book flight").
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np


def main(out: Path) -> None:
    """Write the five files below ``out``."""
    source = Path(os.environ.get("LIMEN_DATASETS", "../shared/data")) / "clinc150"
    out.mkdir(parents=True, exist_ok=True)
    parts: dict[str, list[list[str]]] = json.loads((source / "data_full.json").read_text())
    rows = [row for part in parts.values() for row in part]
    with np.load(source / "clinc150_minilm.npz") as archive:
        vectors, labels = archive["embeddings"].astype(np.float32), archive["labels"]
    known = labels != "oos"
    for name, chosen in (("intents", known), ("out_of_scope", ~known)):
        texts = [(text, label) for text, label in rows if (label != "oos") == (name == "intents")]
        lines = [json.dumps({"text": text, "label": label}) for text, label in texts]
        (out / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
        np.savez(out / f"{name}.npz", embeddings=vectors[chosen], labels=labels[chosen])
        print(f"{out / name}: {len(lines)} texts, {int(chosen.sum())} vectors")
    pairs = [
        json.dumps({"query": text, "item": label.replace("_", " ")}) for text, label in rows if label != "oos"
    ]
    (out / "pairs.jsonl").write_text("\n".join(pairs) + "\n")
    print(f"{out / 'pairs.jsonl'}: {len(pairs)} texts, each with the words of its intent")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/clinc150"))
