"""Gain of encoding in batches: 16 clients that each send one image at a time, in one run on this machine.

    python -m benchmarks.encoding [--clients 16] [--seconds 5]

The network is a small convolutional one of random weights over grey images of 64 x 64. Each setting
serves in a process of its own; settings take turns for three rounds, medians are shown.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import socket
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from api_schemas.build_config import IndexConfig
from api_schemas.manifest import ENCODER_FILE, PREPROCESSING_FILE
from api_schemas.preprocessing import ImageInput
from benchmarks.wire import build_request, read_status, start_server, write_server_program
from embeddings.embedding_set import EmbeddingSet
from embeddings.hashes import hash_encoder
from encoder import Encoder
from encoder.inputs.image_input import ImagePreprocessing
from index.bundle import write_bundle

SIDE, DIM = 64, 128
ROUNDS = 3
SETTINGS = {
    "one by one": {"LIMEN_ENCODE_BATCH": "1"},
    "up to 8 together": {"LIMEN_ENCODE_BATCH": "8"},
    "up to 32 together": {"LIMEN_ENCODE_BATCH": "32"},
    "up to 32, waiting 2 ms": {"LIMEN_ENCODE_BATCH": "32", "LIMEN_ENCODE_WAIT": "0.002"},
    "up to 32, waiting 10 ms": {"LIMEN_ENCODE_BATCH": "32", "LIMEN_ENCODE_WAIT": "0.01"},
}


def write_encoder(folder: Path) -> None:
    """Three convolutions, a mean over the picture and a matrix, as ``encoder.onnx``."""
    rng = np.random.default_rng(0)
    nodes, weights, last = [], [], "input"
    for number, (inputs, outputs) in enumerate([(1, 32), (32, 64), (64, 128)]):
        kernel = np.float32(rng.normal(size=(outputs, inputs, 3, 3)) / (3 * np.sqrt(inputs)))
        weights.append(numpy_helper.from_array(kernel, f"w{number}"))
        given = {"strides": [2, 2], "pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
        nodes.append(helper.make_node("Conv", [last, f"w{number}"], [f"c{number}"], **given))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"]))
        last = f"r{number}"
    weights.append(numpy_helper.from_array(rng.normal(size=(128, DIM)).astype(np.float32), "head"))
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["embedding"]),
    ]
    shape = ["batch", 1, SIDE, SIDE]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", DIM])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, folder / ENCODER_FILE)
    rule = ImageInput(mode="L", height=SIDE, width=SIDE, mean=[0.5], std=[0.25])
    ImagePreprocessing(rule).save(folder / PREPROCESSING_FILE)


def build_bundle(folder: Path) -> Path:
    """A bundle of that network with a handful of items."""
    encoder_folder = folder / "encoder"
    encoder_folder.mkdir()
    write_encoder(encoder_folder)
    vectors = Encoder.open(encoder_folder).encode([draw_image(seed) for seed in range(40)])
    model_hash = hash_encoder(encoder_folder / ENCODER_FILE, encoder_folder / PREPROCESSING_FILE)
    write_bundle(
        folder / "bundle",
        name="encoding",
        items=EmbeddingSet.from_arrays(vectors, np.arange(40) // 2),
        model_hash=model_hash,
        encoder_folder=encoder_folder,
        index_config=IndexConfig(),
        report=None,
        operating_points=[],
        active={"verify": None, "match": None},
        reasons=[],
        config_yaml="",
    )
    return folder / "bundle"


def draw_image(seed: int) -> Image.Image:
    """A smooth random image, which compresses about as real ones do."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
    return Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def measure_load(address: tuple[str, int], clients: int, seconds: float) -> tuple[float, float, int]:
    """Images a second, median milliseconds of a request, and refused requests."""
    bodies = []
    for seed in range(32):
        buffer = io.BytesIO()
        draw_image(seed).save(buffer, "PNG")
        uri = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
        body = json.dumps({"input": [uri], "encoding_format": "base64"}).encode()
        bodies.append(build_request("POST", "/v1/embeddings", body, "application/json"))
    took: list[float] = []
    refused: list[int] = []
    until = time.perf_counter() + seconds

    def send_images(first: int) -> None:
        with socket.create_connection(address) as to:
            to.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for number in range(first, 10**9):
                start = time.perf_counter()
                if start > until:
                    break
                if read_status(to, bodies[number % len(bodies)]) == 200:
                    took.append(time.perf_counter() - start)
                else:
                    refused.append(number)
                    time.sleep(0.01)

    threads = [threading.Thread(target=send_images, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(took) / seconds, 1000 * float(np.median(took)), len(refused)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    seen: dict[str, list[tuple[float, float, int]]] = {name: [] for name in SETTINGS}
    alone: dict[str, list[float]] = {name: [] for name in SETTINGS}
    with tempfile.TemporaryDirectory() as folder:
        path = build_bundle(Path(folder))
        for _ in range(ROUNDS):
            for name, settings in SETTINGS.items():
                settings = settings | {"LIMEN_LOG_LEVEL": "warning"}
                with start_server(
                    write_server_program(path), build_request("GET", "/readyz"), settings
                ) as to:
                    measure_load(to.getpeername(), 1, 0.5)
                    alone[name].append(measure_load(to.getpeername(), 1, 1.0)[1])
                    seen[name].append(measure_load(to.getpeername(), given.clients, given.seconds))
    print(f"| {given.clients} clients | images/s | p50 | one client, p50 | refused |")
    print("| --- | --- | --- | --- | --- |")
    for name, rounds in seen.items():
        rate, median, refused = np.median(np.array(rounds), axis=0)
        print(f"| {name} | {rate:,.0f} | {median:.1f} ms | {np.median(alone[name]):.2f} ms | {refused:.0f} |")


if __name__ == "__main__":
    main()
