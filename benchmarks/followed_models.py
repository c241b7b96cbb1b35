"""Models that follow another, come in several sizes or learn from mined negatives: what they reach.

    python -m benchmarks.followed_models [PART ...] [--seeds 3] [--steps 200] --out build/followed.jsonl

    compatible    Omniglot: a new model trained on 300 characters, of which the old one knew 150; its queries
                  against the old model's vectors of 200 unseen characters
    sizes         Omniglot: 16, 32, 64 and 128 numbers from one training against a training for each
    distillation  Omniglot: a network of at most a quarter of its teacher's time, alone and following it, as
                  many steps as the teacher
    texts         CLINC150: n-grams of 75 unseen intents that follow a sentence encoder, alone and with the
                  out-of-scope texts as the teacher's own data
    mining        CLINC150: a linear head on sentence vectors, 75 unseen intents: mined against in-batch
                  negatives

A line a run, on unseen classes; runs already in the file are not repeated. The table gives means over seeds,
and the mean difference from the first row, seed by seed, with its 95 % interval by Student's t.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.consistent_losses import compute_interval, write_vectors
from embeddings.embedding_set import EmbeddingSet

DATASETS = Path(os.environ.get("LIMEN_DATASETS", "../shared/data"))
SMALL = {"backbone": "conv4", "widths": [16, 16, 32, 32], "embedding_dim": 64}
LARGE = {"backbone": "conv4", "widths": [48, 48, 96, 96], "embedding_dim": 64}
QUARTER = {"backbone": "conv4", "widths": [16, 16, 48, 96], "embedding_dim": 64}  # 0.2 of the time of LARGE
SIZES = [16, 32, 64, 128]
EACH = 40  # items of an intent that are measured
FIGURES = ("recall_at_1", "map_at_r", "eer", "fnir")
Row = dict[str, Any]
ONLY: list[str] = []  # rows to run; all where it is empty


def is_wanted(row: str) -> bool:
    """Whether the command line asks for a row, or one that begins so."""
    return not ONLY or any(row.startswith(name) or name.startswith(row) for name in ONLY)


def measure(queries: EmbeddingSet, gallery: EmbeddingSet | None = None) -> Row:
    """recall@1, MAP@R, EER, and FNIR where the FPIR is 5 %, every class in turn left out.

    Of a class with more than EACH items the first are measured.
    """
    from evaluation.metrics.identification import build_trials, find_refused_score
    from evaluation.metrics.retrieval import measure_retrieval
    from evaluation.metrics.verification import compute_equal_error
    from evaluation.pairs.pairs import arrange
    from evaluation.pairs.sweep import sweep_pairs

    if gallery is None:
        order = np.argsort(queries.codes, kind="stable")
        starts = np.searchsorted(queries.codes[order], queries.codes[order])
        queries = queries.subset(np.sort(order[np.arange(len(order)) - starts < EACH]))
    sweep = sweep_pairs(arrange(queries, gallery=gallery), deepest_far=0.1, per_query=True)
    assert sweep.ranks is not None
    retrieval, trials = measure_retrieval(sweep.ranks), build_trials(sweep, None)
    matched = trials.right & (trials.known > find_refused_score(trials.unknown, "0.05"))
    return {
        "recall_at_1": retrieval.recall_at_1,
        "map_at_r": retrieval.map_at_r,
        "eer": compute_equal_error(sweep)[0],
        "fnir": float(1 - matched.mean()),
    }


def train(settings: Row, folder: Path, name: str) -> Any:
    """A run of that name."""
    from api_schemas.config import Config
    from training.loop.train import train as train_network

    return train_network(Config.model_validate({"name": name, **settings}), folder / name)


def write_characters(folder: Path, seed: int) -> dict[str, Path]:
    """Lists of images: ``old`` trains on 150 characters, ``new`` on 300; 30 validate, 200 test."""
    with zipfile.ZipFile(DATASETS / "omniglot" / "images_background.zip") as archive:
        archive.extractall(folder)
    files = sorted(folder.rglob("*.png"))
    labels = [str(file.parent.relative_to(folder)) for file in files]
    order = np.random.default_rng(seed).permutation(sorted(set(labels))).tolist()
    lists = {}
    for name, trained in (("old", 150), ("new", 300)):
        part = dict.fromkeys(order[:trained], "train") | dict.fromkeys(order[300:330], "validation")
        part |= dict.fromkeys(order[330:530], "test")
        rows = [
            f"{file},{label},{part[label]}"
            for file, label in zip(files, labels, strict=True)
            if label in part
        ]
        lists[name] = folder / f"{name}.csv"
        lists[name].write_text("\n".join(["path,label,split", *rows]) + "\n")
    return lists


def describe_images(path: Path, seed: int, steps: int) -> Row:
    """The sections of a configuration that all runs on images share."""
    return {
        "seed": seed,
        "data": {"path": str(path), "image_size": 28, "split": {"by": "column"}},
        "sampler": {"batch_size": 128, "items_per_class": 4},
        "optimizer": {"lr": 2e-3},
        "schedule": {"epochs": 1, "steps_per_epoch": steps, "minutes": None, "shape": "one_cycle"},
        "evaluation": {"every": 1},
    }


def run_compatible(seed: int, steps: int, folder: Path) -> Iterator[Row]:
    """Old model first, then new ones; figures of new queries against old vectors, and among themselves."""
    lists = write_characters(folder, seed)
    simplex = {**SMALL, "embedding_dim": 300}
    old_settings = {
        **describe_images(lists["old"], seed, steps),
        "model": SMALL,
        "loss": ["multi_similarity"],
    }
    old = train(old_settings, folder, "old")
    corners, fixed = old, {"name": "d_simplex", "scale": 20.0}
    if is_wanted("d_simplex") or is_wanted("0.1 d_simplex"):
        corners = train({**old_settings, "model": simplex, "loss": [fixed]}, folder, "old-simplex")
    base = describe_images(lists["new"], seed + 100, steps)
    ms: Row = {"name": "multi_similarity"}
    kept = {**fixed, "corners_from": str(corners.path), "weight": 0.1}
    hoc = {"name": "higher_order_compatibility", "weight": 9.0}
    rows: dict[str, tuple[Any, Row, list[Row], bool]] = {
        "trained anew": (old, SMALL, [ms], False),
        "from the old one": (old, SMALL, [ms], False),
        "from the old one: higher_order_compatibility": (old, SMALL, [ms, hoc], True),
        "frozen old centres: center": (
            old, SMALL, [ms, {"name": "center", "centers_from": str(old.path), "weight": 1.0}], False,
        ),
        "frozen old centres: backward_compatible": (old, SMALL, [ms, {"name": "backward_compatible"}], True),
        "higher_order_compatibility": (old, SMALL, [ms, hoc], True),
        "d_simplex, corners kept": (corners, simplex, [{**kept, "weight": 1.0}], False),
        "0.1 d_simplex + 0.9 higher_order_compatibility": (
            corners, simplex, [kept, {"name": "higher_order_compatibility", "weight": 0.9}], True,
        ),
    }  # fmt: skip
    for name, (source, model, losses, follows) in rows.items():
        if not is_wanted(name):
            continue
        settings = {**base, "model": model, "loss": losses}
        if name.startswith("from the old one"):
            settings = {**base, "loss": losses, "start_from": str(source.path)}
        if follows:
            settings["teacher"] = {"bundle": str(source.ensure_encoder())}
        run = train(settings, folder, f"new-{len(list(folder.iterdir()))}")
        before, after = source.load_embeddings("test"), run.load_embeddings("test")
        mixed, own, was = measure(after, before), measure(after), measure(before)
        yield {
            "row": name,
            **mixed,
            "own": own["recall_at_1"],
            "old": was["recall_at_1"],
            "fnir_own": own["fnir"],
            "fnir_old": was["fnir"],
        }


def run_sizes(seed: int, steps: int, folder: Path) -> Iterator[Row]:
    """One training for four sizes, then one for each."""
    from training.run_folder.several_sizes import cut_embeddings

    base = describe_images(write_characters(folder, seed)["new"], seed, steps) | {
        "loss": ["multi_similarity"]
    }
    model = {**SMALL, "widths": [32, 32, 64, 64]}
    alone = {}
    for size in SIZES:
        alone[size] = train({**base, "model": {**model, "embedding_dim": size}}, folder, f"alone-{size}")
        yield {"row": f"{size} numbers, trained alone", **measure(alone[size].load_embeddings("test"))}
    nested = train({**base, "model": {**model, "embedding_dim": 128, "sizes": SIZES[:-1]}}, folder, "nested")
    for size in SIZES:
        for name, run in (("of one training for all", nested), ("cut from the one of 128", alone[128])):
            items = cut_embeddings(run.load_embeddings("test"), size)
            yield {"row": f"{size} numbers, {name}", **measure(items)}


def time_encoder(run: Any) -> float:
    """Processor seconds for 256 images, the least of five times."""
    from encoder.encoder import Encoder

    encoder = Encoder.open(run.ensure_encoder(), threads=1)
    inputs = np.random.default_rng(0).normal(size=(256, 1, 28, 28)).astype(np.float32)
    times = []
    for _ in range(5):
        start = time.process_time()
        encoder.embed(inputs)
        times.append(time.process_time() - start)
    return min(times)


def run_distillation(seed: int, steps: int, folder: Path) -> Iterator[Row]:
    """The teacher, a small network alone, and small ones that follow it."""
    base = describe_images(write_characters(folder, seed)["new"], seed, steps)
    ms: Row = {"name": "multi_similarity"}
    teacher = train({**base, "model": LARGE, "loss": [ms]}, folder, "teacher")
    seconds = time_encoder(teacher)
    reached = measure(teacher.load_embeddings("test"))
    rows: dict[str, list[Row]] = {
        "the small one alone": [ms],
        "ckd": [{"name": "ckd"}],
        "margin_mse": [{"name": "margin_mse"}],
        "ckd + multi_similarity": [ms, {"name": "ckd"}],
        "0.1 ckd + multi_similarity": [ms, {"name": "ckd", "weight": 0.1}],
        "margin_mse + multi_similarity": [ms, {"name": "margin_mse"}],
        "prototype_relation + multi_similarity": [ms, {"name": "prototype_relation"}],
    }
    yield {"row": "the teacher", **reached, "time": 1.0}
    for name, losses in rows.items():
        if ONLY and name not in ONLY:
            continue
        settings = {**base, "model": QUARTER, "loss": losses}
        if name != "the small one alone":
            settings["teacher"] = {"bundle": str(teacher.ensure_encoder())}
        run = train(settings, folder, f"student-{len(list(folder.iterdir()))}")
        yield {"row": name, **measure(run.load_embeddings("test")), "time": time_encoder(run) / seconds}


def write_texts(folder: Path) -> None:
    """Texts with ids, those of no intent apart, and the sentence vectors of all of them."""
    source = DATASETS / "clinc150"
    parts: dict[str, list[list[str]]] = json.loads((source / "data_full.json").read_text())
    with np.load(source / "clinc150_minilm.npz") as archive:
        vectors, labels = archive["embeddings"].astype(np.float32), archive["labels"]
        part = archive["part"]
    lines: dict[str, list[str]] = {"intents": [], "oos": []}
    rows: list[int] = []
    for name, texts in parts.items():
        of_part = np.flatnonzero(part == name).tolist()
        for row, (text, label) in zip(of_part, texts, strict=True):
            assert labels[row] == label
            line = json.dumps({"id": f"t{row}", "text": text, "label": label})
            lines["oos" if label == "oos" else "intents"].append(line)
            rows.append(row)
    for name, texts_of in lines.items():
        (folder / f"{name}.jsonl").write_text("\n".join(texts_of) + "\n")
    ids = [f"t{row}" for row in rows]
    np.savez(folder / "teacher.npz", embeddings=vectors[rows], labels=labels[rows], ids=ids)


def run_texts(seed: int, steps: int, folder: Path) -> Iterator[Row]:
    """The sentence encoder's vectors, n-grams alone, and n-grams that follow it."""
    write_texts(folder)
    base = {
        "seed": seed,
        "data": {
            "kind": "text",
            "path": str(folder / "intents.jsonl"),
            "split": {"by": "class", "train": 60, "validation": 15, "test": 75, "seed": seed},
            "text": {"buckets": 16384, "length": 128},
        },
        "model": {"backbone": "ngram", "width": 128, "embedding_dim": 128, "dropout": 0.2},
        "sampler": {"batch_size": 128, "items_per_class": 4},
        "optimizer": {"lr": 2e-3},
        "schedule": {"epochs": 1, "steps_per_epoch": 2 * steps, "minutes": None, "shape": "one_cycle"},
    }
    ms: Row = {"name": "multi_similarity"}
    teacher = {"vectors": str(folder / "teacher.npz")}
    more = {**teacher, "data": str(folder / "oos.jsonl")}
    rows: dict[str, tuple[list[Row], Row | None]] = {
        "n-grams alone": ([ms], None),
        "ckd": ([{"name": "ckd"}], teacher),
        "ckd, with texts of no intent": ([{"name": "ckd"}], more),
        "margin_mse": ([{"name": "margin_mse"}], teacher),
        "ckd + multi_similarity": ([ms, {"name": "ckd"}], teacher),
        "prototype_relation + multi_similarity": ([ms, {"name": "prototype_relation"}], teacher),
    }
    for number, (name, (losses, follows)) in enumerate(rows.items()):
        settings = {**base, "loss": losses} | ({} if follows is None else {"teacher": follows})
        run = train(settings, folder, f"texts-{number}")
        test = run.load_embeddings("test")
        if not number:
            with np.load(folder / "teacher.npz") as archive:
                row_of = {name: k for k, name in enumerate(archive["ids"].tolist())}
                vectors = archive["embeddings"][[row_of[name] for name in test.ids.tolist()]]
            teacher_set = EmbeddingSet.from_arrays(vectors, test.labels, test.ids)
            yield {"row": "the sentence encoder", **measure(teacher_set)}
        yield {"row": name, **measure(test)}


def run_mining(seed: int, steps: int, folder: Path) -> Iterator[Row]:
    """In-batch negatives, mined ones without and with a filter, and re-mined ones."""
    path = write_vectors(folder)
    base = {
        "seed": seed,
        "data": {
            "kind": "embeddings",
            "path": str(path),
            "split": {"by": "class", "train": 60, "validation": 15, "test": 75, "seed": seed},
        },
        "model": {"backbone": "linear", "embedding_dim": 128, "head_start": "components"},
        "sampler": {"batch_size": 128, "items_per_class": 4},
        "optimizer": {"lr": 1e-3},
        "schedule": {"epochs": 2, "steps_per_epoch": steps, "minutes": None, "shape": "one_cycle"},
    }
    for loss in ("multi_similarity", "triplet", "nt_xent"):
        mined: dict[str, Row] = {
            "in-batch negatives": {},
            "mined each epoch": {"mining": {"every": 1, "negatives": 3}},
            "mined each epoch, class_margin 0.05": {
                "mining": {"every": 1, "negatives": 3, "class_margin": 0.05}
            },
        }
        for number, (name, section) in enumerate(mined.items()):
            run = train({**base, "loss": [loss], **section}, folder, f"{loss}-{number}")
            yield {"row": f"{loss}, {name}", **measure(run.load_embeddings("test"))}


PARTS = {
    "compatible": run_compatible,
    "sizes": run_sizes,
    "distillation": run_distillation,
    "texts": run_texts,
    "mining": run_mining,
}


def format_table(part: str, rows: list[Row]) -> str:
    """Markdown: means over seeds; against the first row the difference with its interval."""
    figures = [key for key in rows[0] if key not in ("part", "seed", "steps", "row")]
    figures += [key for key in rows[-1] if key not in rows[0]]
    lines = [f"| {part} | seeds | {' | '.join(figures)} |", "| --- " * (2 + len(figures)) + "|"]
    names = list(dict.fromkeys(row["row"] for row in rows))
    first = {row["seed"]: row for row in rows if row["row"] == names[0]}
    for name in names:
        mine = {row["seed"]: row for row in rows if row["row"] == name}
        cells = []
        for key in figures:
            values = [row[key] for row in mine.values() if key in row]
            if not values:
                cells.append("")
                continue
            cell = f"{statistics.fmean(values):.4f}"
            both = [seed for seed in mine if seed in first and key in first[seed]]
            if name != names[0] and both:
                mean, half = compute_interval([mine[seed][key] - first[seed][key] for seed in both])
                cell += f" ({mean:+.4f} +- {half:.4f})"
            cells.append(cell)
        lines.append(f"| {name} | {len(mine)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, then print the tables."""
    import torch

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"all, or some of {', '.join(PARTS)}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="rows of compatible and distillation")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("build/followed.jsonl"))
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    arguments.parts = arguments.parts or list(PARTS)
    if unknown := set(arguments.parts) - PARTS.keys():
        parser.error(f"no such part: {', '.join(unknown)}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    lines = arguments.out.read_text().splitlines() if arguments.out.exists() else []
    rows = [json.loads(line) for line in lines]
    ONLY.extend(arguments.only or [])
    for seed in range(arguments.first_seed, arguments.seeds):
        for part in arguments.parts:
            if any((row["part"], row["seed"], row["steps"]) == (part, seed, arguments.steps) for row in rows):
                continue
            with tempfile.TemporaryDirectory() as folder, arguments.out.open("a") as stream:
                for row in PARTS[part](seed, arguments.steps, Path(folder)):
                    rows.append({"part": part, "seed": seed, "steps": arguments.steps, **row})
                    stream.write(json.dumps(rows[-1]) + "\n")
                    stream.flush()
                    print(rows[-1], flush=True)
    for part in arguments.parts:
        mine = [row for row in rows if row["part"] == part and row["steps"] == arguments.steps]
        print("\n" + format_table(part, mine))


if __name__ == "__main__":
    main()
