"""Export of a network as ``encoder.onnx``, checked against torch, and stored items through such a file."""

from __future__ import annotations

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from api_schemas.manifest import ENCODER_FILE, PREPROCESSING_FILE
from common.array_types import Float32s
from common.atomic_files import write_atomically
from common.errors import BundleError
from common.progress import Track, silent
from embeddings.embedding_set import EmbeddingSet
from encoder.encoder import BATCH, Encoder
from encoder.inputs.preprocessing import Preprocessing
from encoder.network import Network as ServedNetwork
from training.data.items import Items
from training.models.backbones.onnx_network import OnnxNetwork
from training.models.network import Network

MAX_DIFFERENCE = 1e-5
CHECKED_INPUTS = 100
SHORTEST = 1e-12  # as torch normalises
OUTPUT, QUERY_OUTPUT = "embedding", "query_embedding"
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
    inputs = preprocessing.draw_samples(CHECKED_INPUTS)
    folder.mkdir(parents=True, exist_ok=True)
    interface, query_output = None, None
    if isinstance(network.backbone, OnnxNetwork):
        exported, interface = network.backbone.join_head(network.head)
    elif network.query_tower is not None:
        query_output = QUERY_OUTPUT
        exported = _export_onnx(Towers(network, network.query_tower).eval(), inputs, [OUTPUT, query_output])
    else:
        exported = _export_onnx(network, inputs, [OUTPUT])
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    served = ServedNetwork(session, preprocessing, interface)
    difference = _compute_difference(network, served, inputs)
    if network.query_tower is not None:
        of_queries = served.read_output(QUERY_OUTPUT)
        difference = max(difference, _compute_difference(network.query_tower, of_queries, inputs))
    if not difference <= MAX_DIFFERENCE:
        raise BundleError(
            f"{name}: the exported network differs from the trained one by {difference:.1e}, at most "
            f"{MAX_DIFFERENCE:.0e} is allowed."
        )
    preprocessing.save(folder / PREPROCESSING_FILE, interface, query_output)
    write_atomically(folder / ENCODER_FILE, exported)
    return difference


class Towers(nn.Module):
    """Both towers on the same inputs: what one makes of them as items, the other as queries."""

    def __init__(self, items: nn.Module, queries: nn.Module) -> None:
        super().__init__()
        self.items, self.queries = items, queries

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Float [n, *input shape] to two float32 [n, embedding_dim]."""
        return self.items(inputs), self.queries(inputs)


def _export_onnx(network: nn.Module, inputs: Float32s, outputs: list[str]) -> bytes:
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
            Path(folder) / ENCODER_FILE,
            input_names=["input"],
            output_names=outputs,
            dynamic_axes={name: {0: "batch"} for name in ("input", *outputs)},
            opset_version=OPSET,
            dynamo=False,
        )
        return (Path(folder) / ENCODER_FILE).read_bytes()


def _compute_difference(network: Network, served: ServedNetwork, inputs: Float32s) -> float:
    made = served.run(inputs)
    made = made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), SHORTEST)
    with torch.inference_mode():
        trained = network(torch.from_numpy(inputs)).numpy()
    return float(np.abs(made - trained).max())


def embed_items(encoder: Encoder, items: Items, track: Track = silent) -> EmbeddingSet:
    """Embed all items, each by the tower of its role, prepared by the encoder's own rule; labels, ids and
    metadata stay.

    Raises:
        RefusedInput: an item whose vector has no direction; names its number.
    """
    asks = np.zeros(len(items), dtype=bool) if items.is_query is None else items.is_query
    vectors = np.empty((len(items), encoder.dim), dtype=np.float32)
    for start in track(range(0, len(items), BATCH), "embedding", -(-len(items) // BATCH)):
        prepared = encoder.preprocessing.normalise(items.inputs[start : start + BATCH])
        of_queries = asks[start : start + BATCH]
        if encoder.queries is encoder or not of_queries.any():
            vectors[start : start + BATCH] = encoder.embed(prepared, start)
            continue
        for tower, rows in ((encoder.queries, of_queries), (encoder, ~of_queries)):
            places = np.flatnonzero(rows)
            if len(places):
                vectors[start + places] = tower.embed(prepared[places], start)
    return EmbeddingSet(vectors, items.labels, items.ids, items.metadata)
