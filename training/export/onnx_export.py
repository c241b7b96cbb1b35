"""A run's network as ``encoder.onnx`` with its ``preprocessing.json``, checked against torch."""

from __future__ import annotations

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import torch

from common.array_types import Float32s
from common.atomic_files import write_atomically
from common.errors import BundleError
from encoder.preprocessing import PREPROCESSING_FILE, Preprocessing
from training.models.network import Network

ENCODER = "encoder.onnx"
LARGEST_DIFFERENCE = 1e-5
CHECKED_INPUTS = 100
OPSET = 17  # old enough for every onnxruntime in use, new enough for all that the backbones need


def export_encoder(network: Network, preprocessing: Preprocessing, folder: Path, name: str) -> float:
    """Write a network and its preprocessing; the batch size is free, the output unit rows.

    The network file comes last: a folder that has it is complete.

    Args:
        name: of the network in messages, such as its run's folder.

    Returns:
        The largest absolute difference between ONNX Runtime and torch over 100 inputs.

    Raises:
        BundleError: that difference is over 1e-5; nothing is left behind.
    """
    inputs = _inputs(preprocessing, CHECKED_INPUTS)
    folder.mkdir(parents=True, exist_ok=True)
    exported = _exported(network, inputs)
    difference = _difference(network, inputs, exported)
    if not difference <= LARGEST_DIFFERENCE:
        raise BundleError(
            f"{name}: the exported network differs from the trained one by {difference:.1e}, at most "
            f"{LARGEST_DIFFERENCE:.0e} is allowed."
        )
    preprocessing.save(folder / PREPROCESSING_FILE)
    write_atomically(folder / ENCODER, exported)
    return difference


def _inputs(preprocessing: Preprocessing, n: int) -> Float32s:
    """Float32 [n, *shape]: n-gram numbers for texts, else normal draws, as prepared inputs are scaled."""
    random, rule = np.random.default_rng(0), preprocessing.input
    if rule.kind == "text":
        return random.integers(0, rule.buckets, (n, rule.length)).astype(np.float32)
    if rule.kind == "tokens":  # numbers that every vocabulary has, texts of every length
        numbers = random.integers(1, 100, (n, rule.length))
        return np.where(np.arange(rule.length) < 1 + np.arange(n)[:, None] % rule.length, numbers, 0).astype(
            np.float32
        )
    return random.standard_normal((n, *preprocessing.shape), dtype=np.float32)


def _exported(network: Network, inputs: Float32s) -> bytes:
    """The network as ONNX."""
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        # the newer exporter needs a package more and gives the same graph for these networks
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="Exporting aten::index", category=UserWarning)
        # shapes of the inputs are fixed but for the batch; what goes wrong there shows in the comparison
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        torch.onnx.export(
            network,
            (torch.from_numpy(inputs[:2]),),
            Path(folder) / ENCODER,
            input_names=["input"],
            output_names=["embedding"],
            dynamic_axes={"input": {0: "batch"}, "embedding": {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )
        return (Path(folder) / ENCODER).read_bytes()


def _difference(network: Network, inputs: Float32s, exported: bytes) -> float:
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    served = session.run(None, {"input": inputs})[0]
    with torch.inference_mode():
        trained = network(torch.from_numpy(inputs)).numpy()
    return float(np.abs(served - trained).max())
