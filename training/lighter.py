"""A run with an encoder of 8-bit or 16-bit weights, and what that costs, measured on its own embeddings."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.float16 import convert_float_to_float16

from api_schemas.errors import CalibrationRefused, InputError
from api_schemas.operating_point import Target
from decision.embedding_files import save_embeddings
from decision.embeddings import EmbeddingSet
from decision.progress import Track, silent
from encoder.encoder import BATCH, ENCODER_FILE, Encoder
from encoder.preprocessing import Preprocessing
from evaluation.calibrate import calibrate
from evaluation.evaluate import evaluate
from evaluation.pairs import arrange
from training.data.items import Items
from training.data.load import load_data
from training.run import CONFIG, EMBEDDINGS, SUMMARY, Run

Precision = Literal["int8", "fp16"]
FAR = 0.01


@dataclass(frozen=True)
class Cost:
    """What lighter weights changed on the test classes: (before, after).

    Attributes:
        far: at the threshold that the float32 encoder's own FAR 1 % point has, fitted on validation
            classes; None where those cannot support one.
    """

    precision: Precision
    mebibytes: tuple[float, float]
    recall_at_1: tuple[float, float]
    far: tuple[float, float] | None

    def __str__(self) -> str:
        far = "not measured, too few validation classes for an operating point"
        if self.far is not None:
            far = f"{self.far[0]:.4%} -> {self.far[1]:.4%}"
        return (
            f"{self.precision}: {self.mebibytes[0]:.2f} -> {self.mebibytes[1]:.2f} MiB, recall@1 "
            f"{self.recall_at_1[0]:.4f} -> {self.recall_at_1[1]:.4f}, FAR at float32's operating point {far}."
        )


def lighter_run(run: Run, precision: Precision, track: Track = silent) -> tuple[Run, Cost]:
    """A run folder inside the run's, whose encoder has lighter weights and made the embeddings in it.

    It can be evaluated, calibrated, compared and exported as the run itself can. int8 rounds weights once
    and activations as they come (``quantize_dynamic``); fp16 keeps inputs and outputs in float32.

    Raises:
        InputError: the run's data is not what it was trained on, or it has no test items.
    """
    full, light = run.encoder_folder(), run.path / precision
    (light / "encoder").mkdir(parents=True, exist_ok=True)
    _write(full / ENCODER_FILE, light / "encoder" / ENCODER_FILE, precision)
    run.preprocessing().save(light / "encoder" / "preprocessing.json")
    run.preprocessing().save(light / "preprocessing.json")
    encoder = Encoder.open(light / "encoder", threads=0)
    (light / EMBEDDINGS).mkdir(exist_ok=True)
    for name, items in load_data(run.config.data, track).parts().items():
        stored = run.embeddings(name)
        if stored is None or not np.array_equal(stored.ids, items.ids):
            raise InputError(
                f"{run.path}: the data is not what this run was trained on: {name} items differ."
            )
        save_embeddings(_embedded(encoder, items, track), light / EMBEDDINGS / f"{name}.npz")
    for name in (SUMMARY, CONFIG):
        shutil.copyfile(run.path / name, light / name)
    opened = Run.open(light)
    sizes = [(folder / ENCODER_FILE).stat().st_size / 2**20 for folder in (full, light / "encoder")]
    return opened, _cost(run, opened, precision, (sizes[0], sizes[1]))


def _write(source: Path, target: Path, precision: Precision) -> None:
    temporary = target.with_name(f".{target.name}.tmp")
    if precision == "int8":
        quantize_dynamic(source, temporary, weight_type=QuantType.QUInt8)
    else:
        onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), temporary)
    temporary.replace(target)


def _embedded(encoder: Encoder, items: Items, track: Track) -> EmbeddingSet:
    rule: Preprocessing = encoder.preprocessing
    vectors = []
    for start in track(range(0, len(items), BATCH), "embedding", -(-len(items) // BATCH)):
        rows = items.inputs[start : start + BATCH]
        vectors.append(encoder.embed(rule.normalised(rows) if rule.kind == "image" else rows, start))
    return EmbeddingSet(np.concatenate(vectors), items.labels, items.ids, items.metadata)


def _cost(run: Run, light: Run, precision: Precision, sizes: tuple[float, float]) -> Cost:
    before, after, fit = run.embeddings("test"), light.embeddings("test"), run.embeddings("validation")
    if before is None or after is None:
        raise InputError(f"{run.path} has no test items to measure what {precision} costs.")
    recalls = [_recall(items) for items in (before, after)]
    far = None
    if fit is not None:
        try:
            target = Target(kind="far", value=FAR, confidence=0.95)
            point = calibrate(fit, target, score="cosine", name="float32", model_hash="").point
            far = far_at(before, point.threshold), far_at(after, point.threshold)
        except CalibrationRefused:
            far = None
    return Cost(precision, sizes, (recalls[0], recalls[1]), far)


def _recall(items: EmbeddingSet) -> float:
    return evaluate(items, model_hash="", split="test").retrieval.recall_at_1 or 0.0


def far_at(items: EmbeddingSet, threshold: float) -> float:
    """Share of the impostor pairs at or above a threshold."""
    pairs = arrange(items)
    _, accepted = pairs.accepted_per_class([threshold])
    return float(accepted.sum() / pairs.impostor_per_class.sum())
