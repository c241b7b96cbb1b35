"""From what is said and what an ONNX file says: preprocessing, interface, and refusals in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from api_schemas.preprocessing import AudioInput, ImageInput, NetworkInterface, TokenInput, VectorInput
from common.errors import ConfigError, InputError
from encoder import Encoder
from encoder.network import Network
from encoder.wrapping.fit_network import fit_network
from encoder.wrapping.network_file import open_network
from encoder.wrapping.preprocessing_file import parse_preprocessing
from tests.encoder.wrapping.networks import (
    DIM,
    FLOAT,
    FLOAT16,
    INT64,
    UINT8,
    draw_weights,
    save_network,
    write_image_network,
    write_spectrogram_network,
    write_text_network,
    write_tokenizer,
)

UNIT = {"kind": "image", "size": [4, 6], "mean": 0.0, "std": 1.0}


def fit(path: Path, keys: dict[str, Any]) -> tuple[Encoder, NetworkInterface]:
    network = open_network(path, path.name)
    preprocessing, interface = fit_network(parse_preprocessing(keys, "prep.yaml"), network)
    return Encoder(Network(network.session, preprocessing, interface), preprocessing), interface


def refuse(path: Path, keys: dict[str, Any]) -> str:
    with pytest.raises((InputError, ConfigError)) as refusal:
        fit(path, keys)
    sentence = str(refusal.value)
    assert "\n" not in sentence
    assert path.name in sentence or "prep.yaml" in sentence
    return sentence


def normalise(row: np.ndarray) -> np.ndarray:
    return row / np.linalg.norm(row)


@pytest.mark.parametrize("dims", [("n", 3, "h", "w"), ("n", "h", "w", 3), ("n", 3, 4, 6), ("n", 4, 6, 3)])
@pytest.mark.parametrize("dtype", [FLOAT, FLOAT16])
def test_layouts_are_read_from_the_file_and_give_one_answer(
    tmp_path: Path, dims: tuple[int | str, ...], dtype: int
) -> None:
    encoder, interface = fit(write_image_network(tmp_path / "a.onnx", dims, dtype), UNIT)
    assert interface.layout == ("NHWC" if dims[-1] == 3 else "NCHW")
    assert encoder.preprocessing.shape == (3, 4, 6)
    pixels = np.random.default_rng(0).random((2, 3, 4, 6), dtype=np.float32)
    expected = [normalise(image.mean(axis=(1, 2)) @ draw_weights(3)) for image in pixels]
    np.testing.assert_allclose(encoder.embed(pixels), expected, atol=2e-3 if dtype == FLOAT16 else 1e-6)


def test_whole_pixels_are_fed_as_they_are(tmp_path: Path) -> None:
    path = write_image_network(tmp_path / "a.onnx", ("n", "h", "w", 3), UINT8)
    encoder, _ = fit(path, {"preset": "pixels", "size": [4, 6]})
    stored = np.arange(72, dtype=np.uint8).reshape(1, 3, 4, 6) * 3
    expected = normalise(stored[0].astype(np.float64).mean(axis=(1, 2)) @ draw_weights(3))
    got = encoder.embed(encoder.preprocessing.normalise(stored))[0]
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert "preset: pixels" in refuse(path, {"preset": "imagenet"})


def test_a_fixed_size_is_taken_from_the_file_but_never_against_what_was_said(tmp_path: Path) -> None:
    path = write_image_network(tmp_path / "a.onnx", ("n", 3, 64, 32))
    encoder, _ = fit(path, {"preset": "imagenet"})
    rule = encoder.preprocessing.rule
    assert isinstance(rule, ImageInput)
    assert (rule.height, rule.width, rule.short_side) == (64, 32, 73)
    assert "takes images of 64 x 32 (height x width)" in refuse(path, {"preset": "imagenet", "size": 64})


def test_a_batch_of_one_runs_one_by_one(tmp_path: Path) -> None:
    fixed, interface = fit(write_image_network(tmp_path / "a.onnx", (1, 3, "h", "w")), UNIT)
    free, _ = fit(write_image_network(tmp_path / "b.onnx"), UNIT)
    assert interface.batch == 1
    pixels = np.random.default_rng(0).random((5, 3, 4, 6), dtype=np.float32)
    np.testing.assert_allclose(fixed.embed(pixels), free.embed(pixels), atol=1e-6)


@pytest.mark.parametrize(
    ("dims", "keys", "sentence"),
    [
        ((8, 3, "h", "w"), {}, "exactly 8 inputs at a time: export it with a free first dimension"),
        (("n", 3, "h", "w"), {"network": {"layout": "NHWC"}}, "which is NCHW, not NHWC"),
        (("n", 1, "h", "w"), {}, r"have 3 channels (say colour: grey)"),
        (("n", 3, "h"), {}, "which are no images: expected 4 dimensions"),
        (
            ("n", 3, "h", "w"),
            {"network": {"input": "pixels"}},
            "has no input 'pixels'; it has 'images' float",
        ),
        (("n", 3, "h", "w"), {"network": {"output": "logits"}}, "has no output 'logits'; it has 'features'"),
        (("n", 3, "h", "w"), {"size": None}, "takes images of any size: say which in the preprocessing"),
        (("n", 3, "h", "w"), {"size": [4, 4, 4]}, "size is a side in pixels or [height, width]"),
        (("n", 3, "h", "w"), {"resize": "crop", "short_side": 3}, "short_side must be at least 6"),
        (("n", 3, "h", "w"), {"mean": [0.0]}, "needs 3 values in mean and in std"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    tmp_path: Path, dims: tuple[int | str, ...], keys: dict[str, Any], sentence: str
) -> None:
    path = tmp_path / "a.onnx"
    if 3 not in dims or len(dims) == 3:
        node = helper.make_node("Flatten", ["images"], ["features"])
        save_network(path, [node], [("images", FLOAT, dims)], [("features", FLOAT, ("n", "d"))])
    else:
        write_image_network(path, dims)
    assert sentence in refuse(path, {**UNIT, **keys})


def test_inputs_of_another_type_are_refused(tmp_path: Path) -> None:
    path = write_image_network(tmp_path / "a.onnx", dtype=INT64)
    assert "'images' int64 [?, 3, ?, ?], expected float or float16 or double" in refuse(path, UNIT)


def test_several_outputs_must_be_told_apart(tmp_path: Path) -> None:
    path = write_text_network(tmp_path / "a.onnx", "both")
    keys = {"kind": "text", "tokenizer": str(write_tokenizer(tmp_path / "tokenizer.json"))}
    sentence = refuse(path, keys)
    assert (
        "has 2 outputs ('last_hidden_state' float [?, ?, 4], 'sentence_embedding' float [?, 4])" in sentence
    )
    assert "--output" in sentence
    _, interface = fit(path, {**keys, "network": {"output": "sentence_embedding"}})
    assert interface.output == "sentence_embedding"


def test_answers_that_are_no_vectors_are_refused(tmp_path: Path) -> None:
    images = [("images", FLOAT, ("n", 3, "h", "w"))]
    node = helper.make_node("Identity", ["images"], ["map"])
    path = save_network(tmp_path / "map.onnx", [node], images, [("map", FLOAT, ("n", 3, "h", "w"))])
    assert "answers an array of [1, 3, 4, 6] to one input" in refuse(path, UNIT)
    encoder, _ = fit(path, {**UNIT, "network": {"pooling": "mean"}})
    pixels = np.random.default_rng(0).random((2, 3, 4, 6), dtype=np.float32)
    np.testing.assert_allclose(encoder.embed(pixels)[1], normalise(pixels[1].mean(axis=(1, 2))), atol=1e-6)
    node = helper.make_node("Flatten", ["images"], ["flat"])
    path = save_network(tmp_path / "flat.onnx", [node], images, [("flat", FLOAT, ("n", "d"))])
    assert "answers vectors of 49,152 numbers, 2 to 16,384" in refuse(path, {**UNIT, "size": 128})
    node = helper.make_node("Shape", ["images"], ["shape"])
    path = save_network(tmp_path / "shape.onnx", [node], images, [("shape", INT64, (4,))])
    assert "'shape' int64 [4]: an embedding is floats" in refuse(path, UNIT)


def test_a_network_that_asks_for_all_memory_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["large"]),
        helper.make_node("ReduceSum", ["large"], ["sum"], keepdims=0),
        helper.make_node("ReduceMean", ["images"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("Add", ["means", "sum"], ["features"]),
    ]
    path = save_network(
        tmp_path / "a.onnx",
        nodes,
        [("images", FLOAT, ("n", 3, "h", "w"))],
        [("features", FLOAT, ("n", "d"))],
        {"shape": np.array([10**6, 10**6])},
    )
    sentence = refuse(path, UNIT)
    assert "Failed to allocate memory" in sentence
    assert "onnxruntime_src" not in sentence
    node = helper.make_node("Identity", ["weights"], ["features"])
    path = save_network(
        tmp_path / "b.onnx", [node], [], [("features", FLOAT, (1, 4))], {"weights": draw_weights(1)}
    )
    assert "has no input: it answers the same to everything" in refuse(path, UNIT)


def test_a_network_that_fails_says_what_to_look_at(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["images", "weights"], ["features"])
    path = save_network(
        tmp_path / "a.onnx",
        [node],
        [("images", FLOAT, ("n", "a", "b", "c"))],
        [("features", FLOAT, ("n", "d"))],
        {"weights": draw_weights(5)},
    )
    assert "fails on an input of 3 x 4 x 6: " in (sentence := refuse(path, UNIT))
    assert "network.layout" in sentence


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@pytest.mark.parametrize("length", ["length", 6])
def test_texts_are_pooled_over_their_own_tokens_alone(
    tmp_path: Path, pooling: str, length: int | str
) -> None:
    path = write_text_network(tmp_path / "a.onnx", length=length)
    tokenizer = write_tokenizer(tmp_path / "tokenizer.json")
    keys = {"preset": "sentence", "tokenizer": str(tokenizer), "network": {"pooling": pooling}}
    encoder, interface = fit(path, keys)
    assert (interface.input, interface.mask, interface.types) == (
        "input_ids",
        "attention_mask",
        "token_type_ids",
    )
    ids = {"one two": [1, 3, 4, 2], "three": [1, 5, 2], "four five six one": [1, 6, 7, 8, 3, 2]}
    for text, rows in ids.items():
        states = draw_weights(50)[rows]
        expected = {"mean": states.mean(axis=0), "cls": states[0], "max": states.max(axis=0)}[pooling]
        np.testing.assert_allclose(encoder.encode([text])[0], normalise(expected), atol=1e-6)
    together = encoder.encode(list(ids))
    np.testing.assert_allclose(together, np.concatenate([encoder.encode([text]) for text in ids]), atol=1e-6)


def test_a_long_text_keeps_its_last_special_token(tmp_path: Path) -> None:
    path = write_text_network(tmp_path / "a.onnx", "masked")
    keys = {"kind": "text", "tokenizer": str(write_tokenizer(tmp_path / "tokenizer.json")), "length": 4}
    encoder, _ = fit(path, keys)
    assert isinstance(encoder.preprocessing.rule, TokenInput)
    expected = normalise(draw_weights(50)[[1, 3, 4, 2]].sum(axis=0))
    np.testing.assert_allclose(encoder.encode(["one two three four"])[0], expected, atol=1e-6)
    plain, _ = fit(path, {**keys, "special_tokens": False})
    expected = normalise(draw_weights(50)[[3, 4, 5, 6]].sum(axis=0))
    np.testing.assert_allclose(plain.encode(["one two three four five"])[0], expected, atol=1e-6)


def test_an_input_that_nothing_feeds_is_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("ReduceMean", ["rows"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("Add", ["mean", "language"], ["features"]),
    ]
    path = save_network(
        tmp_path / "a.onnx",
        nodes,
        [("input_ids", INT64, ("n", "t")), ("language", FLOAT, ("n", DIM))],
        [("features", FLOAT, ("n", DIM))],
        {"table": draw_weights(50)},
    )
    keys = {"kind": "text", "tokenizer": str(write_tokenizer(tmp_path / "tokenizer.json"))}
    assert "needs the input 'language' float [?, 4] as well, which nothing feeds" in refuse(path, keys)
    nodes = [helper.make_node("Add", ["left", "right"], ["features"])]
    two = [("left", FLOAT, ("n", 3, "h", "w")), ("right", FLOAT, ("n", 3, "h", "w"))]
    path = save_network(tmp_path / "b.onnx", nodes, two, [("features", FLOAT, ("n", 3, "h", "w"))])
    assert "has 2 inputs ('left' float" in refuse(path, UNIT)


def test_vectors_are_brought_to_length_one_in_the_gallery_and_when_asked_about(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "weights"], ["y"])
    path = save_network(
        tmp_path / "a.onnx",
        [node],
        [("x", FLOAT, ("n", 3))],
        [("y", FLOAT, ("n", DIM))],
        {"weights": draw_weights(3)},
    )
    encoder, _ = fit(path, {"kind": "vector"})
    assert encoder.preprocessing.rule == VectorInput(dim=3, unit=True)
    np.testing.assert_allclose(
        encoder.encode([[1.0, 2.0, 2.0], [10.0, 20.0, 20.0]]),
        np.repeat(normalise(np.array([1, 2, 2]) @ draw_weights(3))[None], 2, axis=0),
        atol=1e-6,
    )
    prepared = encoder.preprocessing.prepare([[3.0, 0.0, 4.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(prepared, [[0.6, 0, 0.8], [0, 0, 0]], atol=1e-7)
    assert "takes vectors of 3 numbers, the preprocessing 5" in refuse(path, {"kind": "vector", "dim": 5})


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({}, "prep.yaml: kind is missing: give one of image, audio, text, vector, or a preset (imagenet, "),
        ({"kind": "sound"}, "prep.yaml: kind is 'sound'"),
        ({"preset": "imagnet"}, "preset: 'imagnet' is unknown; did you mean 'imagenet'?"),
        ({**UNIT, "sise": 4}, "unknown key 'sise': did you mean 'size'?"),
        ({**UNIT, "resize": "squash"}, "resize: Input should be 'stretch', 'crop' or 'pad', found 'squash'"),
        ({"kind": "image", "size": 4, "std": 1.0}, "prep.yaml: mean: Field required"),
        ({**UNIT, "range": [1.0, 0.0]}, "value_range must rise"),
        ({**UNIT, "std": 0.0}, "greater than 0"),
    ],
)
def test_preprocessing_is_checked_key_by_key(tmp_path: Path, keys: dict[str, Any], sentence: str) -> None:
    assert sentence in refuse(write_image_network(tmp_path / "a.onnx"), keys)


SOUND = {"kind": "audio", "mels": 8, "piece": 20}


@pytest.mark.parametrize(
    ("dims", "layout"),
    [
        (("n", "t", 8), "NTF"),
        (("n", 8, "t"), "NFT"),
        (("n", 8, 20), "NFT"),
        (("n", 1, "t", 8), "NCTF"),
        (("n", 1, 8, "t"), "NCHW"),
    ],
)
def test_layouts_of_spectrograms_are_read_from_the_file_and_give_one_answer(
    tmp_path: Path, dims: tuple[int | str, ...], layout: str
) -> None:
    path = write_spectrogram_network(tmp_path / "a.onnx", dims)
    encoder, interface = fit(path, SOUND)
    assert interface.layout == layout
    assert encoder.preprocessing.shape == (1, 8, 20)
    pieces = np.random.default_rng(0).normal(size=(3, 1, 8, 20)).astype(np.float32)
    expected = [normalise(piece[0].mean(axis=1) @ draw_weights(8)) for piece in pieces]
    np.testing.assert_allclose(encoder.embed(pieces), expected, atol=1e-6)


def test_sounds_are_prepared_as_the_preset_and_the_keys_above_it_say(tmp_path: Path) -> None:
    path = write_spectrogram_network(tmp_path / "a.onnx", ("n", "t", 40), mels=40)
    rule = fit(path, {"preset": "voice_ge2e", "step": 160})[0].preprocessing.rule
    assert isinstance(rule, AudioInput)
    assert (rule.n_fft, rule.window, rule.hop, rule.fmax, rule.loudness) == (400, 400, 160, 8_000.0, -30.0)
    assert (rule.piece, rule.step, rule.shortest, rule.log) == (160, 160, 0.8, "none")


@pytest.mark.parametrize(
    ("dims", "keys", "sentence"),
    [
        (("n", "t", 80), {}, "have 8 mel bands and 20 frames: expected [n, frames, mels]"),
        (("n", "t"), {}, "'mels' float [?, ?], pieces of the preprocessing have 8 mel bands"),
        (
            ("n", 98, 8),
            {},
            "'mels' float [?, 98, 8], pieces of the preprocessing have 8 mel bands and 20 frames",
        ),
        (("n", "t", 8), {"network": {"layout": "NFT"}}, "which is NTF, not NFT"),
        (("n", "t", 8), {"step": 21}, "preprocessing's (top level): Value error, step must be at most piece"),
        (("n", "t", 8), {"mel": 8}, "unknown key 'mel': did you mean 'mels'?"),
    ],
)
def test_a_network_that_does_not_fit_its_sounds_is_a_sentence(
    tmp_path: Path, dims: tuple[int | str, ...], keys: dict[str, Any], sentence: str
) -> None:
    assert sentence in refuse(write_spectrogram_network(tmp_path / "a.onnx", dims), {**SOUND, **keys})
