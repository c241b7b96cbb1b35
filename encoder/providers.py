"""Where a network is computed: ONNX Runtime's execution providers, each checked against the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime import InferenceSession

from api_schemas.preprocessing import Provider
from common.array_types import Float32s, Float64s
from encoder.inputs.preprocessing import Preprocessing
from encoder.network import Network

# without TF32, whose 10 bits would move similarities
PROVIDERS: Mapping[Provider, tuple[str, Mapping[str, Any]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),
    "tensorrt": ("TensorrtExecutionProvider", {}),
    "openvino": ("OpenVINOExecutionProvider", {}),
    "coreml": ("CoreMLExecutionProvider", {}),
}
CHECKED_INPUTS = 8
MAX_DISTANCE = 1e-3  # L2, of unit vectors: no similarity differs by more

OpenSession = Callable[[list[Any]], InferenceSession]


@dataclass(frozen=True)
class Placed:
    """A network where it is computed; ``note`` says why that is the CPU where another place was asked for."""

    network: Network
    provider: Provider
    note: str | None = None


def place_network(
    on_cpu: Network,
    wanted: Provider,
    open_session: OpenSession,
    build: Callable[[InferenceSession], Network],
    preprocessing: Preprocessing,
) -> Placed:
    """The network on a provider, if it is there and computes what the CPU does; else on the CPU.

    Args:
        open_session: opens the same file with a list of providers.
        build: the network of a session.
    """
    if wanted == "cpu":
        return Placed(on_cpu, "cpu")
    name, options = PROVIDERS[wanted]
    available = onnxruntime.get_available_providers()
    stay = partial(_stay_on_cpu, on_cpu, name)
    if name not in available:
        return stay(f"is not in this ONNX Runtime, which has {', '.join(available)}")
    inputs = _draw_inputs(preprocessing)
    try:
        session = open_session([(name, dict(options)), PROVIDERS["cpu"][0]])
        if session.get_providers()[0] != name:
            return stay("could not be started, for want of its libraries")
        network = build(session)
        distance = _measure_distance(network, on_cpu, inputs)
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return stay(f"failed ({reason})")
    if not distance <= MAX_DISTANCE:
        return stay(f"makes vectors that differ by {distance:.1e}, at most {MAX_DISTANCE:g} is taken")
    return Placed(network, wanted)


def _stay_on_cpu(on_cpu: Network, name: str, reason: str) -> Placed:
    return Placed(on_cpu, "cpu", f"{name} {reason}: the CPU computes the encoder.")


def _draw_inputs(preprocessing: Preprocessing) -> Float32s:
    inputs = preprocessing.draw_samples(CHECKED_INPUTS)
    # any vocabulary has the first two tokens
    return np.minimum(inputs, np.float32(2)) if preprocessing.layout == "tokens" else inputs


def _measure_distance(network: Network, on_cpu: Network, inputs: Float32s) -> float:
    """Largest L2 distance of the unit vectors of both, all inputs together and the first one alone."""
    expected = _scale(on_cpu.run(inputs))
    together, alone = _scale(network.run(inputs)), _scale(network.run(inputs[:1]))
    distances = [*np.linalg.norm(together - expected, axis=1), np.linalg.norm(alone[0] - expected[0])]
    return float(np.max(distances))


def _scale(rows: Float64s) -> Float64s:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float64)
