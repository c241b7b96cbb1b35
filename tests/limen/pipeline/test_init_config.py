"""``limen init``: data is looked at, and what is written can be run as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from onnx import helper

from api_schemas.config import Config
from api_schemas.yaml_config import read_mapping
from embeddings.files import save_embeddings
from index.bundle import verify_bundle
from limen.pipeline.wrap_encoder import build_config
from tests.encoder.wrapping.networks import (
    DIM,
    FLOAT,
    draw_weights,
    save_network,
    write_image_network,
    write_tokenizer,
)
from tests.limen.conftest import Limen, make_classes
from tests.limen.pipeline.test_wrap_encoder import paint, write_sentence_transformer, write_texts

PARTS = ("--set", "data.split.validation=0.3", "--set", "data.split.test=0")  # of eight classes


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with photos of eight classes and texts."""
    monkeypatch.chdir(tmp_path)
    for label in range(8):
        (tmp_path / "photos" / f"class{label}").mkdir(parents=True)
        for number in range(4):
            paint(label * 10 + number).save(tmp_path / "photos" / f"class{label}" / f"{number}.png")
    write_texts(tmp_path / "texts.jsonl")
    return tmp_path


def test_photos_and_a_network_in_the_folder_are_wrapped_as_written(limen: Limen, here: Path) -> None:
    write_image_network(here / "network.onnx")
    (here / "photos" / "class0" / "broken.png").write_bytes(b"none")
    outcome = limen("init", "photos", "photos")
    assert outcome.code == 0, outcome.err
    assert "33 items of 8 classes, 4 to 5 of each (median 4), about 47 x 40 pixels" in outcome.err
    assert "Next: limen wrap photos.yaml --out bundles/photos" in outcome.err
    text = (here / "photos.yaml").read_text()
    assert "1 of 33 that were opened are broken" in text
    assert "# Below 20 classes thresholds are estimated, not proven." in text
    keys = read_mapping(here / "photos.yaml")["encoder"]
    preprocessing = {"preset": "imagenet"}  # its 224 pixels, however small the photos are
    assert keys == {"path": "network.onnx", "preprocessing": preprocessing}
    (here / "photos.yaml").write_text(text.replace("broken: fail", "broken: skip"))
    made = limen("wrap", "photos.yaml", "--out", "bundles/photos", "--target-fpir", "0.1")
    assert made.code == 0, made.err
    assert verify_bundle(here / "bundles" / "photos").counts.items == 32
    again = limen("init", "photos", "photos")
    assert (again.code, "photos.yaml exists" in again.err) == (2, True)


def test_a_network_of_a_fixed_size_keeps_it(limen: Limen, here: Path) -> None:
    network = write_image_network(here / "fixed.onnx", ("n", 3, 32, 32))
    outcome = limen("init", "photos", "photos", "--encoder", network, "--out", "a.yaml")
    assert outcome.code == 0, outcome.err
    assert build_config("a.yaml").encoder.preprocessing == {"preset": "imagenet"}
    assert "takes images of 3 x 32 x 32 as 'images' and answers 4 numbers" in (here / "a.yaml").read_text()


def test_without_an_encoder_a_training_is_written(limen: Limen, here: Path) -> None:
    outcome = limen("init", "photos", "photos", "--out", "train.yaml")
    assert outcome.code == 0, outcome.err
    assert Config.load(here / "train.yaml").data.path == "photos"
    assert "limen init photos photos --encoder network.onnx" in (here / "train.yaml").read_text()
    assert "limen data check train.yaml, then limen train train.yaml" in outcome.err


def test_a_bundle_that_was_wrapped_gets_a_head(limen: Limen, here: Path) -> None:
    write_image_network(here / "network.onnx")
    prep = '{"preset": "imagenet", "size": 16}'
    (here / "prep.yaml").write_text(prep)
    made = limen(
        "wrap", "network.onnx", "--data", "photos", "--preprocessing", "prep.yaml", "--out", "bundle"
    )
    assert made.code == 0, made.err
    outcome = limen("init", "photos", "photos", "--encoder", "bundle")
    assert outcome.code == 0, outcome.err
    assert "Next: limen data check photos-head.yaml, then limen train photos-head.yaml" in outcome.err
    config = Config.load(here / "photos-head.yaml")
    assert (config.model.backbone, config.model.train) == ("onnx:bundle", "head")
    assert (config.model.head_start, config.model.embedding_dim) == ("whitened", 4)
    assert config.model.head_shrinkage == 1.0
    checked = limen("data", "check", "photos-head.yaml", *PARTS)
    assert "Input: image, 3 x 16 x 16." in checked.out, "as the bundle's network takes them"
    trained = limen("train", "photos-head.yaml", "--set", "schedule.epochs=1", "--out", "run", *PARTS)
    assert trained.code == 0, trained.err
    other = limen("init", "text", "texts.jsonl", "--encoder", "bundle", "--out", "b.yaml")
    assert (other.code, "encoder of bundle takes images, the data are text" in other.err) == (2, True)


def test_faces_are_wrapped_as_insightface_takes_them(limen: Limen, here: Path) -> None:
    network = write_image_network(here / "faces.onnx", ("n", 3, 112, 112))
    outcome = limen("init", "faces", "photos", "--encoder", network)
    assert outcome.code == 0, outcome.err
    assert build_config("faces.yaml").encoder.preprocessing == {"preset": "insightface"}
    assert "cut out and turned upright" in (here / "faces.yaml").read_text()


def test_vectors_get_a_projection_or_the_network_that_takes_them(limen: Limen, here: Path) -> None:
    items = make_classes(30, 6, dim=12)
    save_embeddings(items, here / "vectors.npz")
    outcome = limen("init", "vectors", "vectors.npz")
    assert outcome.code == 0, outcome.err
    text = (here / "vectors.yaml").read_text()
    assert "180 items of 30 classes, 6 to 6 of each (median 6), 12 numbers each." in text
    assert "limen build vectors.npz --out bundles/vectors" in text
    assert '{"input": YOUR VECTOR}' in text, "one of the same length as an embedding is taken for one"
    assert "split" not in read_mapping(here / "vectors.yaml")["data"], (
        "no split of 30 classes proves anything"
    )
    trained = limen("train", "vectors.yaml", "--set", "schedule.epochs=1", "--out", "run")
    assert trained.code == 0, trained.err
    nodes = [helper.make_node("MatMul", ["rows", "weights"], ["features"])]
    rows, features = [("rows", FLOAT, ["n", 12])], [("features", FLOAT, ["n", DIM])]
    network = save_network(here / "rows.onnx", nodes, rows, features, {"weights": draw_weights(12)})
    wrapped = limen("init", "vectors", "vectors.npz", "--encoder", network, "--out", "wrap.yaml")
    assert wrapped.code == 0, wrapped.err
    assert build_config("wrap.yaml").encoder.preprocessing is None


def test_classes_that_another_split_proves_thresholds_on_get_it(limen: Limen, here: Path) -> None:
    for classes, expected in ((44, {"train": 0.5, "validation": 0.35, "test": 0.15}), (60, None)):
        save_embeddings(make_classes(classes, 4, dim=12), here / "v.npz")
        outcome = limen("init", "vectors", "v.npz", "--out", f"v{classes}.yaml")
        assert outcome.code == 0, outcome.err
        assert read_mapping(here / f"v{classes}.yaml")["data"].get("split") == expected
        checked = limen("data", "check", f"v{classes}.yaml")
        assert "will be estimated and proven" in checked.out


def test_texts_with_a_folder_or_a_token_table(limen: Limen, here: Path) -> None:
    from safetensors.numpy import save_file

    write_sentence_transformer(here / "model", "pooling_mode_mean_tokens")
    outcome = limen("init", "text", "texts.jsonl", "--out", "a.yaml")
    assert outcome.code == 0, outcome.err
    config = build_config("a.yaml")
    assert (config.encoder.path, config.encoder.preprocessing) == ("model", None)
    shutil.rmtree(here / "model")
    save_file({"table": draw_weights(50)}, here / "table.safetensors")
    refused = limen("init", "text", "texts.jsonl", "--encoder", "table.safetensors", "--out", "b.yaml")
    assert (refused.code, "holds 0 files *tokenizer.json" in refused.err) == (2, True)
    write_tokenizer(here / "tokenizer.json")
    outcome = limen("init", "text", "texts.jsonl", "--out", "b.yaml")  # the only network there
    assert outcome.code == 0, outcome.err
    assert build_config("b.yaml").encoder.preprocessing == {"preset": "static", "tokenizer": "tokenizer.json"}
    text = (here / "b.yaml").read_text()
    assert "(sentence, static): docs/bring-an-encoder.md" in text, "no presets of images"
    assert "limen init text texts.jsonl --encoder bundles/b" in text
    made = limen("wrap", "b.yaml", "--out", "bundle")
    assert made.code == 0, made.err
    assert limen("init", "text", "texts.jsonl", "--encoder", "bundle", "--out", "c.yaml").code == 0
    assert Config.load(here / "c.yaml").model.head_shrinkage == 10, "means of words are whitened little"


def test_of_several_networks_the_one_that_fits_is_taken(limen: Limen, here: Path) -> None:
    write_image_network(here / "network.onnx")
    write_image_network(here / "grey.onnx", ("n", 1, 4, 4))
    outcome = limen("init", "photos", "photos", "--out", "a.yaml")
    assert outcome.code == 0, outcome.err
    assert build_config("a.yaml").encoder.path == "network.onnx"
    shutil.copy(here / "network.onnx", here / "other.onnx")
    outcome = limen("init", "photos", "photos", "--out", "b.yaml")
    assert outcome.code == 0, outcome.err
    assert "network.onnx, other.onnx are all encoders of such data: choose one with --encoder." in outcome.err
    assert Config.load(here / "b.yaml").data.path == "photos"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["photos", "nowhere"], "nowhere does not exist"),
        (["photos", "photos", "--encoder", "none.onnx"], "none.onnx is not a file"),
        (["voices", "photos"], "voices"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(
    limen: Limen, here: Path, arguments: list[str], sentence: str
) -> None:
    outcome = limen("init", *arguments, "--out", "a.yaml")
    assert outcome.code == 2
    assert sentence in outcome.err
    assert not (here / "a.yaml").exists()


def test_a_network_of_something_else_is_left_aside(limen: Limen, here: Path) -> None:
    write_image_network(here / "grey.onnx", ("n", 1, 4, 4))
    outcome = limen("init", "photos", "photos", "--out", "train.yaml")
    assert outcome.code == 0, outcome.err
    assert "grey.onnx is left aside: " in outcome.err
    assert Config.load(here / "train.yaml").data.path == "photos"
