"""A run with an encoder of 8-bit or 16-bit weights, and what that costs, measured on its own embeddings."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from api_schemas.operating_point import Target
from common.array_types import Float32s
from common.atomic_files import write_atomically
from common.errors import CalibrationRefused, InputError
from common.progress import Track, silent
from embeddings.files import save_embeddings
from encoder.encoder import ENCODER_FILE, Encoder
from evaluation.calibration.calibrate import calibrate
from evaluation.metrics.retrieval import retrieval
from evaluation.pairs.accepted_counts import accepted_per_class
from evaluation.pairs.pairs import Pairs, arrange
from evaluation.pairs.ranks import ranks_of
from training.data.load_data import load_data
from training.export.embed_onnx import encoded
from training.run_folder.run_folder import Run
from training.run_folder.run_layout import CONFIG, EMBEDDINGS, SUMMARY

Precision = Literal["int8", "fp16"]
FAR = 0.01


@dataclass(frozen=True)
class Cost:
    """What lighter weights changed on the test classes: (before, after).

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


def lighter_run(run: Run, precision: Precision, track: Track = silent) -> tuple[Run, Cost]:
    """A run folder inside the run's, whose encoder has lighter weights and made the embeddings in it.

    It can be evaluated, calibrated, compared and exported as the run itself can. Weights alone are rounded;
    for int8 to 255 steps between the largest of a row (an output of a layer, an n-gram) and its opposite.

    Raises:
        InputError: the run's data is not what it was trained on, or it has no test items.
    """
    full, light = run.ensure_encoder(), run.path / precision
    (light / "encoder").mkdir(parents=True, exist_ok=True)
    lighter = _lighter(onnx.load(full / ENCODER_FILE), precision)
    write_atomically(light / "encoder" / ENCODER_FILE, lighter.SerializeToString())
    run.preprocessing().save(light / "encoder" / "preprocessing.json")
    run.preprocessing().save(light / "preprocessing.json")
    encoder = Encoder.open(light / "encoder", threads=0)
    (light / EMBEDDINGS).mkdir(exist_ok=True)
    splits = load_data(run.config.data, track)
    run.refuse_other_data(splits)
    for name, items in splits.parts().items():
        save_embeddings(encoded(encoder, items, track), light / EMBEDDINGS / f"{name}.npz")
    for name in (SUMMARY, CONFIG):
        shutil.copyfile(run.path / name, light / name)
    opened = Run.open(light)
    sizes = [(folder / ENCODER_FILE).stat().st_size / 2**20 for folder in (full, light / "encoder")]
    return opened, _cost(run, opened, precision, (sizes[0], sizes[1]))


def _lighter(model: onnx.ModelProto, precision: Precision) -> onnx.ModelProto:
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
            whole, scale = _in_bytes(values)
            weight.CopyFrom(numpy_helper.from_array(whole, f"{name}/int8"))
            model.graph.initializer.append(numpy_helper.from_array(scale, f"{name}/scale"))
            readers.append(helper.make_node("Cast", [weight.name], [f"{name}/whole"], to=TensorProto.FLOAT))
            readers.append(helper.make_node("Mul", [f"{name}/whole", f"{name}/scale"], [name]))
    nodes = [*readers, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _in_bytes(values: Float32s) -> tuple[NDArray[np.int8], Float32s]:
    """Whole numbers in -127..127 of the shape of ``values`` and what to multiply them by, [n, 1, ...]."""
    largest = np.abs(values).max(axis=tuple(range(1, values.ndim)), keepdims=True)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(values / scale).astype(np.int8), scale


def _cost(run: Run, light: Run, precision: Precision, sizes: tuple[float, float]) -> Cost:
    before, after = _test_pairs(run, precision), _test_pairs(light, precision)
    recalls = retrieval(ranks_of(before)).recall_at_1, retrieval(ranks_of(after)).recall_at_1
    recall = None if recalls[0] is None or recalls[1] is None else (recalls[0], recalls[1])
    threshold = _threshold(run) if before.n_impostor else None
    far = None if threshold is None else (far_at(before, threshold), far_at(after, threshold))
    return Cost(precision, sizes, recall, far)


def _test_pairs(run: Run, precision: Precision) -> Pairs:
    items = run.embeddings("test")
    if items is None:
        raise InputError(f"{run.path} has no test items to measure what {precision} costs.")
    return arrange(items, exclude_same=run.config.evaluation.exclude_same)


def _threshold(run: Run) -> float | None:
    """Of a FAR 1 % point, fitted on validation classes; None where they cannot support one."""
    fit = run.embeddings("validation")
    if fit is None:
        return None
    target = Target(kind="far", value=FAR, confidence=0.95)
    try:
        return calibrate(fit, target, score="cosine", name="float32", model_hash="").point.threshold
    except CalibrationRefused:
        return None


def far_at(pairs: Pairs, threshold: float) -> float:
    """Share of the impostor pairs at or above a threshold."""
    _, accepted = accepted_per_class(pairs, [threshold])
    return float(accepted.sum() / pairs.impostor_per_class.sum())
