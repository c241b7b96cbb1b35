"""An ONNX network: how prepared inputs are fed to it, and how its answer becomes one vector an input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession, RunOptions, SessionOptions

from api_schemas.preprocessing import Layout, NetworkInterface
from common.array_types import Float32s, Float64s
from encoder.inputs.preprocessing import Preprocessing

CPU = ("CPUExecutionProvider",)
DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}
"""Types of inputs that are fed, by ONNX Runtime's name for them."""


PIECES_AT_ONCE = 64  # of all inputs of a batch together
ARRANGE: Mapping[Layout, Callable[[Float32s], Float32s]] = {
    "NCHW": lambda maps: maps,
    "NHWC": lambda maps: maps.transpose(0, 2, 3, 1),
    "NFT": lambda maps: maps[:, 0],
    "NTF": lambda maps: maps[:, 0].transpose(0, 2, 1),
    "NCTF": lambda maps: maps.transpose(0, 1, 3, 2),
}
"""From maps [n, channels, height, width], or spectrograms [n, 1, frequency, time], to a network's layout."""


def open_session(path: Path, threads: int, providers: Sequence[Any] = CPU) -> InferenceSession:
    """Load an ONNX file; raises ONNX Runtime's own exceptions, which have no common base.

    Args:
        threads: threads one call may compute with; 0 takes all.
        providers: ONNX Runtime's names of where to compute, the preferred one first.
    """
    options = SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # threads that spin while they wait take the cores from everyone else
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return InferenceSession(path, options, providers=list(providers))


class Network:
    """A loaded network. Safe to call from several threads at once.

    Args:
        interface: of a network that was made elsewhere; None for one that was exported here, whose first
            input takes the prepared array and whose first output is vectors.
    """

    def __init__(
        self, session: InferenceSession, preprocessing: Preprocessing, interface: NetworkInterface | None
    ) -> None:
        self._session = session
        self._pieces_ndim = len(preprocessing.shape) + 2 if preprocessing.has_pieces else None
        self._has_tokens = interface is not None and preprocessing.layout == "tokens"
        self._interface = interface or NetworkInterface(
            input=session.get_inputs()[0].name, output=session.get_outputs()[0].name
        )
        # texts of a fixed length keep their padding
        shapes = {node.name: node.shape for node in session.get_inputs()}
        self._keeps_padding = self._has_tokens and isinstance(shapes[self._interface.input][1], int)
        self._dtypes = {node.name: DTYPES[node.type] for node in session.get_inputs() if node.type in DTYPES}
        self._options = RunOptions()
        self._options.only_execute_path_to_fetches = len(session.get_outputs()) > 1

    def read_output(self, name: str) -> Network:
        """The same network read at another of its outputs."""
        other = copy(self)
        other._interface = self._interface.model_copy(update={"output": name})
        return other

    def run(self, prepared: Float32s) -> Float64s:
        """The network's answer to prepared inputs [n, *shape]: float64 [n, d], of any length.

        Of inputs in pieces, [n, most pieces, *shape]: the mean of the unit vectors of each one's pieces.
        """
        if prepared.ndim == self._pieces_ndim:
            return self._run_pieces(prepared)
        if self._interface.batch == 1 and len(prepared) > 1:
            return np.concatenate([self.run(row[None]) for row in prepared])
        mask = None
        if self._has_tokens:
            prepared, mask = (prepared, prepared > 0) if self._keeps_padding else _trim_padding(prepared)
        feeds = self._build_feeds(prepared, mask)
        output = self._session.run([self._interface.output], feeds, self._options)[0]
        pooled = np.asarray(output, dtype=np.float64)
        if self._interface.pooling is not None:
            pooled = self._pool(pooled, mask)
        return pooled

    def _run_pieces(self, prepared: Float32s) -> Float64s:
        rows, positions = np.nonzero(~np.isnan(prepared[:, :, 0, 0, 0]))
        starts = range(0, len(rows), PIECES_AT_ONCE)
        pieces = (slice(start, start + PIECES_AT_ONCE) for start in starts)
        vectors = np.concatenate([self.run(prepared[rows[part], positions[part]]) for part in pieces])
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        sums = np.zeros((len(prepared), vectors.shape[1]))
        np.add.at(sums, rows, vectors / np.where(lengths > 0, lengths, 1.0))
        return np.asarray(sums / np.bincount(rows, minlength=len(prepared))[:, None])

    def _build_feeds(self, prepared: Float32s, mask: NDArray[np.bool_] | None) -> Mapping[str, Any]:
        interface = self._interface
        if mask is not None:
            ids = np.maximum(prepared - 1, 0)
            wanted = {interface.input: ids, interface.mask: mask, interface.types: np.zeros_like(ids)}
            return {name: self._convert(name, array) for name, array in wanted.items() if name is not None}
        prepared = ARRANGE[interface.layout](prepared) if prepared.ndim == 4 else prepared
        return {interface.input: self._convert(interface.input, prepared)}

    def _convert(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        dtype = self._dtypes.get(name, np.float32)
        if dtype is np.uint8:  # pixels, which are whole numbers but for rounding
            array = np.rint(array)
        return np.ascontiguousarray(array, dtype=dtype)

    def _pool(self, output: Float64s, mask: NDArray[np.bool_] | None) -> Float64s:
        """One vector an input, of tokens [n, t, d] or positions [n, d, h, w] (NHWC: [n, h, w, d])."""
        if output.ndim == 4:
            channels_last = self._interface.layout == "NHWC"
            output = output if channels_last else output.transpose(0, 2, 3, 1)
            output = output.reshape(len(output), -1, output.shape[-1])
        if output.ndim != 3:
            return output
        if self._interface.pooling == "cls":
            return output[:, 0]
        present = np.ones(output.shape[:2], dtype=bool) if mask is None else mask
        if self._interface.pooling == "max":
            return np.asarray(np.where(present[..., None], output, -np.inf).max(axis=1))
        kept = np.where(present[..., None], output, 0.0)
        # a text without tokens has no mean; zero has no direction, which is refused
        return np.asarray(kept.sum(axis=1) / np.maximum(present.sum(axis=1), 1)[:, None])


def _trim_padding(prepared: Float32s) -> tuple[Float32s, NDArray[np.bool_]]:
    """Token ids plus 1 as long as the longest text of the batch, and where there are tokens."""
    mask = prepared > 0
    longest = max(1, int(mask.any(axis=0).sum()))
    return prepared[:, :longest], mask[:, :longest]
