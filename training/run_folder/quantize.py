"""Quantisation of a run's encoder to 8-bit or 16-bit weights, and its accuracy cost on the test classes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from api_schemas.manifest import CONFIG_FILE, ENCODER_FILE, PREPROCESSING_FILE
from api_schemas.operating_point import Target
from common.array_types import Float32s
from common.atomic_files import write_atomically
from common.errors import CalibrationRefused, InputError
from common.progress import Track, silent
from embeddings.files import save_embeddings
from encoder.encoder import Encoder
from evaluation.calibration.calibrate import calibrate_threshold
from evaluation.metrics.retrieval import measure_retrieval
from evaluation.pairs.pairs import Pairs, arrange
from evaluation.pairs.ranks import compute_ranks
from evaluation.pairs.threshold_levels import count_accepted_per_class
from training.data.load_data import load_data
from training.export.onnx_export import embed_items
from training.run_folder import layout
from training.run_folder.run_folder import Run

Precision = Literal["int8", "fp16"]
FAR = 0.01


@dataclass(frozen=True)
class QuantizationCost:
    """The effect of quantisation on the test classes: (before, after).

    Attributes:
        mebibytes: of the encoder file.
        recall_at_1: None where no test class has two items.
        far: at the threshold that the float32 encoder's own FAR 1 % point has, fitted on validation
            classes; None where those cannot support one, or no two test items are of different classes.
    """

    precision: Precision
    mebibytes: tuple[float, float]
    recall_at_1: tuple[float, float] | None
    far: tuple[float, float] | None

    def __str__(self) -> str:
        recall = "not given, no test class has two items"
        if self.recall_at_1 is not None:
            recall = f"{self.recall_at_1[0]:.4f} -> {self.recall_at_1[1]:.4f}"
        far = "not given, too few classes for an operating point"
        if self.far is not None:
            far = f"{self.far[0]:.4%} -> {self.far[1]:.4%}"
        return (
            f"{self.precision}: {self.mebibytes[0]:.2f} -> {self.mebibytes[1]:.2f} MiB, recall@1 {recall}, "
            f"FAR at float32's operating point {far}."
        )


def quantize_run(run: Run, precision: Precision, track: Track = silent) -> tuple[Run, QuantizationCost]:
    """A run folder inside the run's with a quantised encoder, and embeddings that it made.

    It can be evaluated, calibrated, compared and exported as the run itself can. Weights alone are rounded;
    for int8 to 255 steps between the largest of a row (an output of a layer, an n-gram) and its opposite.

    Raises:
        InputError: the run's data is not what it was trained on, or it has no test items.
    """
    original, folder = run.ensure_encoder() / ENCODER_FILE, run.path / precision
    encoder_folder = folder / layout.ENCODER_FOLDER
    encoder_folder.mkdir(parents=True, exist_ok=True)
    smaller = _quantize_weights(onnx.load(original), precision).SerializeToString()
    write_atomically(encoder_folder / ENCODER_FILE, smaller)
    run.preprocessing().save(encoder_folder / PREPROCESSING_FILE)
    run.preprocessing().save(folder / PREPROCESSING_FILE)
    encoder = Encoder.open(encoder_folder, threads=0)
    (folder / layout.EMBEDDINGS_FOLDER).mkdir(exist_ok=True)
    splits = load_data(run.config.data, track)
    run.check_same_data(splits)
    for name, items in splits.parts().items():
        save_embeddings(embed_items(encoder, items, track), layout.get_embeddings_path(folder, name))
    for name in (layout.SUMMARY_FILE, CONFIG_FILE):
        shutil.copyfile(run.path / name, folder / name)
    quantized = Run.open(folder)
    mebibytes = original.stat().st_size / 2**20, len(smaller) / 2**20
    return quantized, _measure_cost(run, quantized, precision, mebibytes)


def _quantize_weights(model: onnx.ModelProto, precision: Precision) -> onnx.ModelProto:
    """The network with its weights stored in fewer bytes and read back into float32 once, when it is opened.

    Its arithmetic stays float32. In half precision the numbers of n-grams and tokens would be rounded;
    rounding activations to 8 bits as they come (ONNX Runtime's ``quantize_dynamic``) does so by the largest
    of the batch, so that an item's embedding would depend on its neighbours, and takes convolutions four
    times as long.
    """
    readers = []
    for weight in list(model.graph.initializer):
        if weight.data_type != TensorProto.FLOAT:
            continue
        name, values = weight.name, numpy_helper.to_array(weight)
        if precision == "fp16":
            limit = np.finfo(np.float16).max
            half = np.clip(values, -limit, limit).astype(np.float16)
            weight.CopyFrom(numpy_helper.from_array(half, f"{name}/fp16"))
            readers.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
        elif values.ndim > 1:
            whole, scale = _round_to_int8(values)
            weight.CopyFrom(numpy_helper.from_array(whole, f"{name}/int8"))
            model.graph.initializer.append(numpy_helper.from_array(scale, f"{name}/scale"))
            readers.append(helper.make_node("Cast", [weight.name], [f"{name}/whole"], to=TensorProto.FLOAT))
            readers.append(helper.make_node("Mul", [f"{name}/whole", f"{name}/scale"], [name]))
    nodes = [*readers, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _round_to_int8(values: Float32s) -> tuple[NDArray[np.int8], Float32s]:
    """Whole numbers in -127..127 of the shape of ``values`` and what to multiply them by, [n, 1, ...]."""
    largest = np.abs(values).max(axis=tuple(range(1, values.ndim)), keepdims=True)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(values / scale).astype(np.int8), scale


def _measure_cost(
    run: Run, quantized: Run, precision: Precision, mebibytes: tuple[float, float]
) -> QuantizationCost:
    before, after = _arrange_test_pairs(run, precision), _arrange_test_pairs(quantized, precision)
    recalls = (
        measure_retrieval(compute_ranks(before)).recall_at_1,
        measure_retrieval(compute_ranks(after)).recall_at_1,
    )
    recall = None if recalls[0] is None or recalls[1] is None else (recalls[0], recalls[1])
    threshold = _fit_threshold(run) if before.n_impostor else None
    far = None if threshold is None else (compute_far(before, threshold), compute_far(after, threshold))
    return QuantizationCost(precision, mebibytes, recall, far)


def _arrange_test_pairs(run: Run, precision: Precision) -> Pairs:
    items = run.embeddings("test")
    if items is None:
        raise InputError(f"{run.path} has no test items to measure the accuracy cost of {precision} on.")
    return arrange(items, exclude_same=run.config.evaluation.exclude_same)


def _fit_threshold(run: Run) -> float | None:
    """Of a FAR 1 % point, fitted on validation classes; None where they cannot support one."""
    fit = run.embeddings("validation")
    if fit is None:
        return None
    target = Target(kind="far", value=FAR, confidence=0.95)
    try:
        return calibrate_threshold(fit, target, score="cosine", name="float32", model_hash="").point.threshold
    except CalibrationRefused:
        return None


def compute_far(pairs: Pairs, threshold: float) -> float:
    """Fraction of the impostor pairs at or above a threshold."""
    _, accepted = count_accepted_per_class(pairs, [threshold])
    return float(accepted.sum() / pairs.impostor_per_class.sum())
