"""Quantisation of a run's encoder to 8-bit or 16-bit weights, and its accuracy cost on the test classes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from api_schemas.class_corners import CLASS_CORNERS_FILE
from api_schemas.manifest import CONFIG_FILE, ENCODER_FILE, PREPROCESSING_FILE
from api_schemas.operating_point import MATCH_PROBABILITY_FILE, Target
from common.atomic_files import write_atomically
from common.choices import EncoderPrecision
from common.errors import CalibrationRefused, InputError
from common.progress import Track, silent
from embeddings.files import save_embeddings
from encoder.encoder import Encoder
from evaluation.calibration.calibrate import calibrate_threshold
from evaluation.calibration.sets.sources import CalibrationSources
from evaluation.metrics.retrieval import measure_retrieval
from evaluation.pairs.pairs import Pairs, arrange
from evaluation.pairs.ranks import compute_ranks
from evaluation.pairs.threshold_levels import count_accepted_per_class
from training.data.load_data import load_data
from training.export.onnx_export import embed_items
from training.registry import select_entry
from training.run_folder import layout
from training.run_folder.run_folder import Run

Quantized = tuple[list[TensorProto], list[NodeProto]]
Quantize = Callable[[TensorProto], Quantized]
"""From a float32 weight to the tensors it is stored in and the nodes that read it back under its name."""
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

    precision: EncoderPrecision
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


def quantize_run(
    run: Run, precision: EncoderPrecision, track: Track = silent
) -> tuple[Run, QuantizationCost]:
    """A run folder inside the run's with a quantised encoder, and embeddings that it made.

    It can be evaluated, calibrated, compared and exported as the run itself can. Weights alone are rounded;
    for int8 to 255 steps between the largest of a row (an output of a layer, an n-gram) and its opposite.

    Raises:
        ConfigError: an unknown precision (names those there are).
        InputError: the run's data is not what it was trained on, or it has no test items.
    """
    quantize = select_entry(PRECISIONS, precision, "precision")
    original, folder = run.ensure_encoder() / ENCODER_FILE, run.path / precision
    encoder_folder = folder / layout.ENCODER_FOLDER
    shutil.copytree(original.parent, encoder_folder, dirs_exist_ok=True)
    smaller = _quantize_weights(onnx.load(original), quantize).SerializeToString()
    write_atomically(encoder_folder / ENCODER_FILE, smaller)
    run.load_preprocessing().save(folder / PREPROCESSING_FILE)
    encoder = Encoder.open(encoder_folder, threads=0)
    (folder / layout.EMBEDDINGS_FOLDER).mkdir(exist_ok=True)
    splits = load_data(run.config.data, track)
    run.check_same_data(splits)
    for name, items in splits.get_parts().items():
        save_embeddings(embed_items(encoder, items, track), layout.get_embeddings_path(folder, name))
    for name in (layout.SUMMARY_FILE, CONFIG_FILE):
        shutil.copyfile(run.path / name, folder / name)
    if (corners := run.load_class_corners()) is not None:
        corners.save(folder / CLASS_CORNERS_FILE)
    if (probability := run.load_match_probability()) is not None:
        probability.save(folder / MATCH_PROBABILITY_FILE)
    quantized = Run.open(folder)
    mebibytes = original.stat().st_size / 2**20, len(smaller) / 2**20
    return quantized, _measure_cost(run, quantized, precision, mebibytes)


def _quantize_weights(model: onnx.ModelProto, quantize: Quantize) -> onnx.ModelProto:
    """The network with its weights stored in fewer bytes and read back into float32 once, when it is opened.

    Its arithmetic stays float32. In half precision the ids of n-grams and tokens would be rounded; rounding
    activations to 8 bits as they come (ONNX Runtime's ``quantize_dynamic``) does so by the largest of the
    batch, so that an item's embedding would depend on its neighbours, and takes convolutions four times as
    long.
    """
    readers: list[NodeProto] = []
    for weight in list(model.graph.initializer):
        if weight.data_type == TensorProto.FLOAT:
            (stored, *further), nodes = quantize(weight)
            weight.CopyFrom(stored)
            model.graph.initializer.extend(further)
            readers += nodes
    nodes = [*readers, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _quantize_to_fp16(weight: TensorProto) -> Quantized:
    """Half precision; values beyond its range become its largest."""
    limit = np.finfo(np.float16).max
    half = np.clip(numpy_helper.to_array(weight), -limit, limit).astype(np.float16)
    stored = numpy_helper.from_array(half, f"{weight.name}/fp16")
    return [stored], [helper.make_node("Cast", [stored.name], [weight.name], to=TensorProto.FLOAT)]


def _quantize_to_int8(weight: TensorProto) -> Quantized:
    """Integers in -127..127 and a scale for each row; a vector (a bias) stays as it is."""
    name, values = weight.name, numpy_helper.to_array(weight)
    if values.ndim < 2:
        return [weight], []
    largest = np.abs(values).max(axis=tuple(range(1, values.ndim)), keepdims=True)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    integers = np.rint(values / scale).astype(np.int8)
    return [
        numpy_helper.from_array(integers, f"{name}/int8"),
        numpy_helper.from_array(scale, f"{name}/scale"),
    ], [
        helper.make_node("Cast", [f"{name}/int8"], [f"{name}/whole"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}/whole", f"{name}/scale"], [name]),
    ]


PRECISIONS: dict[str, Quantize] = {"int8": _quantize_to_int8, "fp16": _quantize_to_fp16}


def _measure_cost(
    run: Run, quantized: Run, precision: EncoderPrecision, mebibytes: tuple[float, float]
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


def _arrange_test_pairs(run: Run, precision: EncoderPrecision) -> Pairs:
    items = run.load_embeddings("test")
    if items is None:
        raise InputError(f"{run.path} has no test items to measure the accuracy cost of {precision} on.")
    return arrange(items, exclude_same=run.config.evaluation.exclude_same)


def _fit_threshold(run: Run) -> float | None:
    """Of a FAR 1 % point, fitted on validation classes; None where they cannot support one."""
    fit = run.load_embeddings("validation")
    if fit is None:
        return None
    target = Target(kind="far", value=FAR, confidence=0.95)
    try:
        sources = CalibrationSources(fit)
        return calibrate_threshold(
            sources, target, score="cosine", name="float32", model_hash=""
        ).point.threshold
    except CalibrationRefused:
        return None


def compute_far(pairs: Pairs, threshold: float) -> float:
    """Fraction of the impostor pairs at or above a threshold."""
    _, accepted = count_accepted_per_class(pairs, [threshold])
    return float(accepted.sum() / pairs.impostor_per_class.sum())
