"""``limen wrap``: from an encoder that exists and raw data to a bundle that is served."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import limen as library
from api_schemas.manifest import MANIFEST_FILE, Manifest
from common.errors import InputError
from embeddings.files import read_embeddings
from encoder import Encoder, RefusedInput
from index.bundle import verify_bundle
from index.gallery.gallery import Gallery
from limen.client import Client
from tests.conftest import ROOT
from tests.encoder.wrapping.networks import (
    draw_weights,
    write_image_network,
    write_text_network,
    write_tokenizer,
)
from tests.limen.conftest import Limen
from tests.service.bundles import serve

PREPARED = "preset: unit\nsize: [24, 20]\ninterpolation: bicubic\nfill: 128\n"
PRESET = ("--preprocessing", "imagenet")
QUICK = ("--set", "calibration.targets={fpir: 0.1}")


def paint(seed: int, side: int = 40) -> Image.Image:
    """A photo-like picture: a smooth gradient of two colours with noise."""
    rng = np.random.default_rng(seed)
    top, bottom = rng.integers(0, 255, (2, 3))
    ramp = np.linspace(top, bottom, side)[:, None] + rng.normal(0, 20, (side, side + 7, 3))
    return Image.fromarray(np.clip(ramp, 0, 255).astype(np.uint8))


def with_alpha(image: Image.Image) -> Image.Image:
    fading = Image.linear_gradient("L").resize(image.size)
    image = image.convert("RGBA")
    image.putalpha(fading)
    return image


def deepen(image: Image.Image) -> Image.Image:
    return Image.fromarray((np.asarray(image.convert("L"), np.uint16) * 251).astype(np.uint16))


TURNED = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # by a quarter
# name of a file, what the picture is made, and how Pillow saves it
CARRIERS: list[tuple[str, Callable[[Image.Image], Image.Image], dict[str, Any]]] = [
    ("plain.jpg", lambda image: image, {"quality": 80}),
    ("progressive.jpg", lambda image: image, {"progressive": True}),
    ("turned.jpg", lambda image: image, {"exif": TURNED}),
    ("cmyk.jpg", lambda image: image.convert("CMYK"), {}),
    ("grey.jpg", lambda image: image.convert("L"), {}),
    ("plain.png", lambda image: image, {}),
    ("palette.png", lambda image: image.quantize(32), {}),
    ("clear-palette.png", lambda image: image.quantize(16), {"transparency": 3}),
    ("alpha.png", with_alpha, {}),
    ("deep.png", deepen, {}),
    ("bits.png", lambda image: image.convert("1"), {}),
    ("lossy.webp", lambda image: image, {"quality": 70}),
    ("clear.webp", with_alpha, {"lossless": True}),
    ("moving.gif", lambda image: image, {"save_all": True, "append_images": [paint(99)]}),
    ("plain.tif", lambda image: image, {}),
    ("cmyk.tif", lambda image: image.convert("CMYK"), {"compression": "tiff_lzw"}),
    ("deep.tif", deepen, {}),
    ("two.mpo", lambda image: image, {"format": "MPO", "save_all": True, "append_images": [paint(98)]}),
]  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight classes of pictures, and in the first two every way to carry one."""
    root = tmp_path_factory.mktemp("photos")
    for label in range(8):
        (root / f"class{label}").mkdir()
        for number in range(5):
            paint(label * 10 + number).save(root / f"class{label}" / f"{number}.png")
    for row, (name, convert, options) in enumerate(CARRIERS):
        convert(paint(row + 200)).save(root / f"class{row % 2}" / name.replace(".mpo", ".jpg"), **options)
    return root


@pytest.fixture(scope="module")
def wrapped(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of those, wrapped by the command."""
    from tests.limen.conftest import run_limen

    folder = tmp_path_factory.mktemp("wrapped")
    (folder / "prep.yaml").write_text(PREPARED)
    outcome = run_limen(
        "wrap", write_image_network(folder / "net.onnx"), "--data", photos, "--preprocessing",
        folder / "prep.yaml", "--out", folder / "bundle", "--thumbnails", 32, *QUICK,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "alone and together they get the same vectors" in outcome.err
    assert "Next: limen serve" in outcome.err
    return folder / "bundle"


def read_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def test_the_same_bytes_get_the_stored_vector_over_http(wrapped: Path, photos: Path) -> None:
    assert verify_bundle(wrapped).name == "bundle"
    gallery = Gallery.open(wrapped)
    files = sorted(path for path in photos.rglob("*.*"))
    assert len(files) == 8 * 5 + len(CARRIERS)
    with serve(wrapped) as address, Client(address) as client:
        info = client.info()
        assert (info.encoder.kind, info.encoder.shape) == ("image", [3, 24, 20])
        embedded = client.embeddings([read_uri(path) for path in files])
        answers = client.match([{"input": read_uri(path)} for path in files]).results
    for path, vector, answer in zip(files, embedded, answers, strict=True):
        name = path.relative_to(photos).as_posix()
        stored = gallery.get(name).vector
        np.testing.assert_allclose(vector, stored, atol=1e-5, err_msg=name)
        assert answer.similarity == pytest.approx(1.0, abs=1e-5), name


def test_what_one_side_refuses_the_other_refuses_in_the_same_words(
    limen: Limen, wrapped: Path, photos: Path, tmp_path: Path
) -> None:
    whole = (photos / "class3" / "0.png").read_bytes()
    buffer = io.BytesIO()
    Image.new("F", (9, 9), 0.5).save(buffer, "TIFF")
    large = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(large, "PNG")
    wide = io.BytesIO()
    Image.new("1", (20_000, 8)).save(wide, "PNG")
    bad = {"half": whole[:400], "text": b"no picture", "floats": buffer.getvalue(), "large": large.getvalue(),
           "wide": wide.getvalue(), "bytes": whole + bytes(17 << 20)}  # fmt: skip
    encoder = Encoder.open(wrapped)
    for name, content in bad.items():
        with pytest.raises(RefusedInput) as refusal:
            encoder.encode([content])
        root = tmp_path / name
        for label in "ab":
            (root / label).mkdir(parents=True)
            for number in range(3):
                (root / label / f"{number}.png").write_bytes(whole)
        (root / "a" / "bad.png").write_bytes(content)
        outcome = limen(
            "wrap", write_image_network(tmp_path / "net.onnx"), "--data", root, "--preprocessing", "unit",
            "--set", "encoder.preprocessing.size=24", "--out", tmp_path / "out",
        )  # fmt: skip
        assert outcome.code == 2
        assert f"a/bad.png cannot be used: {refusal.value.reason}" in outcome.err, name


def test_more_data_is_embedded_with_the_bundle(
    limen: Limen, wrapped: Path, photos: Path, tmp_path: Path
) -> None:
    outcome = limen("embed", wrapped, photos, "--out", tmp_path / "again.npz")
    assert outcome.code == 0, outcome.err
    again, gallery = read_embeddings(tmp_path / "again.npz"), Gallery.open(wrapped)
    for name, vector in zip(again.ids.tolist(), again.vectors, strict=True):
        np.testing.assert_allclose(vector, gallery.get(name).vector, atol=1e-6)


def test_broken_items_are_left_out_when_asked(limen: Limen, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").symlink_to(photos)
    roots = [photos, tmp_path / "more"]
    for label in ("class0", "other"):
        (roots[1] / label).mkdir(parents=True)
        (roots[1] / label / "broken.png").write_bytes(b"none")
        paint(77).save(roots[1] / label / "fine.png")
    outcome = limen(
        "wrap", write_image_network(tmp_path / "net.onnx"), "--data", roots[0], "--data", roots[1],
        "--preprocessing", "unit", "--set", "encoder.preprocessing.size=24", "--set", "data.broken=skip",
        "--out", tmp_path / "out", "--name", "mine", *QUICK,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "Skipped 2 broken images: more/class0/broken.png, more/other/broken.png." in outcome.err
    manifest = Manifest.load(tmp_path / "out" / MANIFEST_FILE)
    assert (manifest.name, manifest.counts.items) == ("mine", 8 * 5 + len(CARRIERS) + 2)
    verify_bundle(tmp_path / "out")


def write_texts(path: Path) -> Path:
    words = "one two three four five six seven eight".split()  # noqa: SIM905
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        for row in range(120):
            own = words[row % 6]
            file.write(
                json.dumps({"text": f"{own} {rng.choice(words)} {own}", "label": f"about {own}"}) + "\n"
            )
        for _ in range(10):
            file.write(json.dumps({"text": "seven eight seven", "label": "oos"}) + "\n")
    return path


def test_texts_of_a_token_table_by_configuration_and_from_python(limen: Limen, tmp_path: Path) -> None:
    table = draw_weights(50)
    save_file({"embedding.weight": table, "other": table[:9]}, tmp_path / "table.safetensors")
    write_tokenizer(tmp_path / "tokenizer.json")
    write_texts(tmp_path / "texts.jsonl")
    (tmp_path / "wrap.yaml").write_text(
        f"name: texts\nencoder:\n  path: {tmp_path}/table.safetensors\n  input: embedding.weight\n"
        f"  preprocessing: {{preset: static, tokenizer: {tmp_path}/tokenizer.json}}\n"
        f"data: {{path: {tmp_path}/texts.jsonl, unknown_labels: [oos]}}\n"
        "calibration: {targets: {fpir: 0.1}}\n"
    )
    outcome = limen("wrap", tmp_path / "wrap.yaml", "--out", tmp_path / "a")
    assert outcome.code == 0, outcome.err
    manifest = library.wrap(
        tmp_path / "table.safetensors",
        tmp_path / "texts.jsonl",
        tmp_path / "b",
        preprocessing={"preset": "static", "tokenizer": str(tmp_path / "tokenizer.json")},
        input_name="embedding.weight",
        unknown_labels=["oos"],
        overrides=["calibration.targets={fpir: 0.1}"],
        name="texts",
    )
    other = Manifest.load(tmp_path / "a" / MANIFEST_FILE)
    assert (manifest.model_hash, manifest.data_hash) == (other.model_hash, other.data_hash)
    assert manifest.counts.items == 120
    row = Encoder.open(tmp_path / "b").encode(["one two one"])[0]
    mean = table[[3, 4, 3]].mean(axis=0)
    np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-6)


def write_sentence_transformer(folder: Path, pooling: str) -> Path:
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    for name in ("onnx", "1_Pooling"):
        (folder / name).mkdir(parents=True)
    described = [
        {"idx": row, "name": str(row), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for row, (path, kind) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(described))
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 4, pooling: True})
    )
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 5}')
    write_text_network(folder / "onnx" / "model.onnx", "both")
    write_tokenizer(folder / "tokenizer.json")
    return folder


def test_a_folder_of_sentence_transformers_says_it_all_itself(limen: Limen, tmp_path: Path) -> None:
    folder = write_sentence_transformer(tmp_path / "model", "pooling_mode_cls_token")
    data = write_texts(tmp_path / "texts.jsonl")
    outcome = limen("wrap", folder, "--data", data, "--out", tmp_path / "a", *QUICK)
    assert "Different items get nearly the same vector (median similarity 1.0000)" in outcome.err  # of [CLS]
    folder = write_sentence_transformer(tmp_path / "mean", "pooling_mode_mean_tokens")
    outcome = limen("wrap", folder, "--data", data, "--out", tmp_path / "b", *QUICK)
    assert outcome.code == 0, outcome.err
    row = Encoder.open(tmp_path / "b").encode(["three four five six seven"])[0]
    mean = draw_weights(50)[[1, 5, 6, 7, 2]].mean(axis=0)
    np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--preprocessing", "unit"], "--data: say what to embed"),
        (["--data", "{photos}"], "say how inputs become that with --preprocessing, a YAML file or a preset"),
        (["--data", "{photos}", *PRESET[:1], "imagenett"], "neither a YAML file nor a preset; did you mean"),
        (["--data", "{photos}", "--preprocessing", "prep.yaml"], "prep.yaml cannot be read"),
        (["--data", "nowhere", "--preprocessing", "imagenet"], "nowhere does not exist"),
        (["--data", "{photos}", *PRESET, "--set", "data.split.train=0.5"], "data.split: nothing"),
        (["--data", "{photos}", *PRESET, "--set", "data.kind=text"], "takes images, found 'text'"),
        (["--data", "{photos}", *PRESET, "--set", "encoder.pth=1"], "unknown key 'encoder.pth'"),
    ],
)  # fmt: skip
def test_what_is_missing_is_said_in_one_sentence(
    limen: Limen, photos: Path, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    given = [argument.format(photos=photos) for argument in arguments]
    outcome = limen("wrap", write_image_network(tmp_path / "net.onnx"), *given, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert sentence in outcome.err
    assert outcome.err.strip().splitlines()[-1].startswith("limen: ")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_a_fixed_batch_of_one_and_a_free_one_make_the_same_vectors_and_decisions(
    limen: Limen, photos: Path, tmp_path: Path
) -> None:
    bundles = []
    for name, batch in (("free", "n"), ("fixed", 1)):
        network = write_image_network(tmp_path / f"{name}.onnx", (batch, 3, "h", "w"))
        said = limen(
            "wrap", network, "--data", photos, "--preprocessing", "unit", "--set",
            "encoder.preprocessing.size=24", "--out", tmp_path / name, *QUICK,
        )  # fmt: skip
        assert said.code == 0, said.err
        assert ("takes one input at a time" in said.err) == (batch == 1)
        bundles.append(library.open_bundle(tmp_path / name))
    free, fixed = (Encoder.open(tmp_path / name) for name in ("free", "fixed"))
    queries = [paint(seed) for seed in range(300, 364)]
    together, alone = free.encode(queries), fixed.encode(queries)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    answers = [[(one.decision, one.label) for one in gallery.match(together)] for gallery in bundles]
    assert answers[0] == answers[1]


def test_nothing_of_it_needs_torch(photos: Path, tmp_path: Path) -> None:
    write_image_network(tmp_path / "net.onnx")
    script = (
        "import sys; import limen; limen.wrap('net.onnx', sys.argv[1], 'out', "
        "preprocessing={'preset': 'unit', 'size': 24}, overrides=['calibration.targets={fpir: 0.1}']); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(photos)], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    verify_bundle(tmp_path / "out")


def test_a_bundle_of_another_name_is_not_replaced(wrapped: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds the bundle 'bundle', this one is 'other'"):
        library.wrap(tmp_path / "net.onnx", photos, wrapped, preprocessing="unit", name="other")
