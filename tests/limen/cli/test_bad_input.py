"""Bad input ends with exit code 2 and one clear sentence on stderr, never with a traceback."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.limen.conftest import Limen, Outcome


def refused(outcome: Outcome, *words: str) -> None:
    """The command failed with one sentence that holds these words, and left stdout alone."""
    assert outcome.code == 2
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    sentences = [line for line in outcome.err.splitlines() if line.startswith("limen: ")]
    assert len(sentences) == 1, outcome.err
    for word in words:
        assert word in sentences[0]


def write_npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_missing_file(limen: Limen, tmp_path: Path) -> None:
    refused(limen("evaluate", tmp_path / "gone.npz"), "gone.npz is not a file")


def test_a_folder_that_is_neither_run_nor_bundle(limen: Limen, tmp_path: Path) -> None:
    refused(limen("evaluate", tmp_path), "neither a run folder", "nor a bundle")


@pytest.mark.parametrize(
    ("value", "words"),
    [(np.nan, "row 3 of the embeddings holds NaN"), (np.inf, "row 3 of the embeddings holds an infinite")],
)
def test_rows_that_are_no_numbers(limen: Limen, tmp_path: Path, value: float, words: str) -> None:
    embeddings = np.ones((6, 4))
    embeddings[3, 1] = value
    refused(
        limen("evaluate", write_npz(tmp_path / "x.npz", embeddings=embeddings, labels=[0, 0, 0, 1, 1, 1])),
        words,
    )


def test_zero_row(limen: Limen, tmp_path: Path) -> None:
    embeddings = np.ones((4, 4))
    embeddings[2] = 0
    refused(
        limen("evaluate", write_npz(tmp_path / "x.npz", embeddings=embeddings, labels=[0, 0, 1, 1])),
        "x.npz: row 2 of the embeddings is a zero vector",
    )


def test_lengths_that_differ(limen: Limen, tmp_path: Path) -> None:
    path = write_npz(tmp_path / "x.npz", embeddings=np.ones((4, 4)), labels=[0, 0, 1])
    refused(limen("evaluate", path), "4 embeddings need 4 labels, found 3")


def test_pickled_labels_are_never_opened(limen: Limen, tmp_path: Path) -> None:
    path = write_npz(tmp_path / "x.npz", embeddings=np.ones((2, 4)), labels=np.array([{}, 1], dtype=object))
    refused(limen("evaluate", path), "x.npz cannot be read as an .npz archive of plain arrays")


def test_not_an_archive(limen: Limen, tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"not a zip file")
    refused(limen("evaluate", tmp_path / "x.npz"), "x.npz cannot be read")


def test_one_class_only(limen: Limen, tmp_path: Path) -> None:
    path = write_npz(
        tmp_path / "x.npz", embeddings=np.random.default_rng(0).normal(size=(9, 4)), labels=["a"] * 9
    )
    refused(limen("calibrate", path, "--target-far", 0.01, "--out", tmp_path / "op.json"), "class")


def test_too_few_classes_to_calibrate(limen: Limen, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = write_npz(tmp_path / "x.npz", embeddings=rng.normal(size=(30, 4)), labels=np.arange(30) // 10)
    refused(limen("calibrate", path, "--target-far", 0.01, "--out", tmp_path / "op.json"), "3 classes", "20")
    assert not (tmp_path / "op.json").exists()


def test_two_targets(limen: Limen, embeddings_file: Path, tmp_path: Path) -> None:
    flags = ("--target-far", "0.01", "--eer", "--out", tmp_path / "op.json")
    refused(limen("calibrate", embeddings_file, *flags), "exactly one target")


@pytest.mark.parametrize("flags", [["--eer"], ["--target-frr", "0.05"], ["--cost", "1,5,0.5"]])
def test_groups_of_a_target_that_has_none(
    limen: Limen, embeddings_file: Path, tmp_path: Path, flags: list[str]
) -> None:
    outcome = limen("calibrate", embeddings_file, *flags, "--group", "site", "--out", tmp_path / "op.json")
    refused(outcome, "--group", "--target-fpir")
    assert not (tmp_path / "op.json").exists()


@pytest.mark.parametrize("value", ["0", "1", "1.5", "-0.1", "nan"])
def test_a_target_that_is_no_share(limen: Limen, embeddings_file: Path, tmp_path: Path, value: str) -> None:
    outcome = limen("calibrate", embeddings_file, "--target-far", value, "--out", tmp_path / "op.json")
    refused(outcome, "between 0 and 1", value)


def test_unknown_key_names_the_nearest(limen: Limen, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("data: {kind: builtin, builtin: glyphs}\nshedule: {epochs: 1}\n")
    refused(
        limen("train", tmp_path / "c.yaml", "--out", tmp_path / "r"),
        "c.yaml",
        "shedule",
        "did you mean 'schedule'",
    )


def test_unknown_loss_names_the_nearest(limen: Limen, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("data: {kind: builtin, builtin: glyphs}\nloss: tripplet\n")
    refused(limen("train", tmp_path / "c.yaml", "--out", tmp_path / "r"), "tripplet", "'triplet'")


def image_config(tmp_path: Path) -> Path:
    (tmp_path / "c.yaml").write_text(
        f"data: {{kind: images, path: '{tmp_path / 'images'}'}}\nschedule: {{epochs: 1}}\n"
    )
    (tmp_path / "images").mkdir()
    return tmp_path / "c.yaml"


def add_image(tmp_path: Path, label: str, name: str) -> Path:
    folder = tmp_path / "images" / label
    folder.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16), dtype=np.uint8)).save(folder / name)
    return folder / name


def test_empty_folder(limen: Limen, tmp_path: Path) -> None:
    refused(limen("train", image_config(tmp_path), "--out", tmp_path / "r"), "images", "no images")


def test_no_class_with_two_items(limen: Limen, tmp_path: Path) -> None:
    config = image_config(tmp_path)
    for label in "abcde":
        add_image(tmp_path, label, "1.png")
    refused(limen("train", config, "--out", tmp_path / "r"), "two")


def test_one_class_of_images(limen: Limen, tmp_path: Path) -> None:
    config = image_config(tmp_path)
    for number in range(5):
        add_image(tmp_path, "only", f"{number}.png")
    refused(limen("train", config, "--out", tmp_path / "r"), "class")


def test_broken_image_is_named(limen: Limen, tmp_path: Path) -> None:
    config = image_config(tmp_path)
    for label in "onmlkjihgfedcba":
        for number in range(3):
            path = add_image(tmp_path, label, f"{number}.png")
    path.write_bytes(path.read_bytes()[:40])
    refused(limen("train", config, "--out", tmp_path / "r"), "a/2.png cannot be used")


def test_a_bundle_with_one_byte_changed(limen: Limen, bundle: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(bundle, tmp_path / "bundle")
    assert limen("verify", bundle).code == 0
    for name in ("vectors.npy", "index.faiss", "items.parquet", "report.json"):
        original = (bundle / name).read_bytes()
        middle = len(original) // 2
        (bundle / name).write_bytes(
            original[:middle] + bytes([original[middle] ^ 1]) + original[middle + 1 :]
        )
        outcome = limen("verify", bundle)
        assert outcome.code == 1
        assert name in outcome.err
        refused(limen("serve", bundle, "--port", 0), name)
        (bundle / name).write_bytes(original)
    assert limen("verify", bundle).code == 0


def test_a_port_in_use(limen: Limen, bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(limen("serve", bundle, "--port", port), str(port), "in use")


def test_unknown_command_and_option(limen: Limen) -> None:
    refused(limen("evalaute"), "evalaute")
    refused(limen("evaluate", "x.npz", "--jsn"), "--jsn")


def test_an_operating_point_of_another_model(
    limen: Limen, embeddings_file: Path, far_point: Path, tmp_path: Path
) -> None:
    flags = ("--operating-point", far_point, "--out", tmp_path / "bundle")
    refused(limen("build", embeddings_file, "--model", "b", *flags), "op.json", "calibrate again")
    assert limen("build", embeddings_file, "--model", "a", *flags).code == 0
