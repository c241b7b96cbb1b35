"""The validator finds what would spoil training or its figures."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from api_schemas.data_config import DataConfig
from common.errors import InputError
from training.data.check_data import Finding, check_data
from training.data.near_duplicates import compute_difference_hashes


def check(path: Path, **settings: object) -> list[Finding]:
    return check_data(DataConfig.model_validate({"path": str(path), **settings}))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten classes of four smooth colour images."""
    random = np.random.default_rng(0)
    for label in range(10):
        (tmp_path / str(label)).mkdir()
        for number in range(4):
            small = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            small.resize((64, 64), Image.Resampling.BICUBIC).save(tmp_path / str(label) / f"{number}.png")
    return tmp_path


def test_a_clean_set_has_no_warning(photos: Path) -> None:
    findings = check(photos)
    assert findings[0].sentence.startswith("train 24 items of 6 classes; validation 8 items of 2 classes")
    assert not [finding.sentence for finding in findings if finding.warns]


def find_image_of(photos: Path, part: str) -> Path:
    from training.data.load_data import load_data

    items = load_data(DataConfig(path=str(photos))).get_parts()[part]
    return photos / str(items.ids[0])


def test_exact_copies_are_found_within_a_class_and_between_classes(photos: Path) -> None:
    shutil.copy(find_image_of(photos, "train"), find_image_of(photos, "train").with_name("copy.png"))
    shutil.copy(find_image_of(photos, "train"), find_image_of(photos, "test").with_name("leak.png"))
    warns = {finding.sentence.split(": ")[0]: finding.warns for finding in check(photos)}
    assert warns["3 items are the same input under two labels"]
    assert warns["3 items are in two parts at once"]
    shutil.copy(
        find_image_of(photos, "validation"), find_image_of(photos, "validation").with_name("copy.png")
    )
    warns = {finding.sentence.split(": ")[0]: finding.warns for finding in check(photos)}
    assert warns["2 items are exact copies within their class"] is False


def test_a_recompressed_copy_in_another_part_is_found(photos: Path) -> None:
    image = Image.open(find_image_of(photos, "train"))
    image.resize((96, 96)).save(find_image_of(photos, "test").with_name("again.jpg"), quality=95)
    warnings = [finding.sentence for finding in check(photos) if finding.warns]
    assert len(warnings) == 2
    assert "nearly the same under two labels" in warnings[0]
    warnings = warnings[1:]
    assert "of train and test look nearly the same" in warnings[0]
    assert "again.jpg" in warnings[0]


def test_imbalance_and_lonely_items_are_said(photos: Path) -> None:
    big = find_image_of(photos, "train").parent
    for number in range(60):
        Image.new("RGB", (64, 64), (number, 9, 99)).save(big / f"more{number}.png")
    lonely = find_image_of(photos, "test").parent
    for file in sorted(lonely.iterdir())[1:]:
        file.unlink()
    sentences = {finding.sentence: finding.warns for finding in check(photos)}
    assert any(text.startswith("train: 4 to 64 items a class") and warns for text, warns in sentences.items())
    assert any("test: 1 of 2 classes have one item" in text for text in sentences)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (3, "validation got no items, though data.split asks for some"),
        (7, "test has 5 items of 1 classes, which cannot be measured: at least two classes"),
    ],
)
def test_parts_left_empty_or_alone_are_reported(tmp_path: Path, classes: int, message: str) -> None:
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), 5)
    np.savez(tmp_path / "few.npz", embeddings=random.normal(size=(len(labels), 4)), labels=labels)
    data = DataConfig(kind="embeddings", path=str(tmp_path / "few.npz"))
    warnings = [finding.sentence for finding in check_data(data) if finding.warns]
    assert any(message in sentence for sentence in warnings), warnings


def test_hashes_of_scaled_images_are_equal_and_of_others_are_not() -> None:
    random = np.random.default_rng(0)
    first = random.integers(0, 256, (5, 1, 32, 34), dtype=np.uint8)
    doubled = first.repeat(2, axis=2).repeat(2, axis=3)
    np.testing.assert_array_equal(compute_difference_hashes(first), compute_difference_hashes(doubled))
    assert len(np.unique(compute_difference_hashes(first), axis=0)) == 5


def test_what_training_refuses_is_refused_here(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no images"):
        check(tmp_path)


def test_labels_that_need_a_look_are_named(photos: Path) -> None:
    for name, label in (("0", "Caf\xe9"), ("1", "cafe\u0301"), ("2", "unknown"), ("3", "-1")):
        (photos / name).rename(photos / label)
    warnings = " ".join(finding.sentence for finding in check(photos) if finding.warns)
    assert (
        "2 labels differ from another one in case, blanks, invisible characters or Unicode form" in warnings
    )
    assert r"'Caf\xe9' = 'cafe\u0301'" in warnings
    assert "data.fold_labels=true" in warnings
    assert "Is '-1', 'unknown' an identity?" in warnings
    heard: list[str] = []
    data = {"path": str(photos), "fold_labels": True, "unknown_labels": ["unknown", "-1"]}
    findings = check_data(DataConfig.model_validate(data), say=heard.append)
    sentences = " ".join(finding.sentence for finding in findings)
    assert "fold_labels" not in sentences
    assert "identity?" not in sentences
    assert "8 items of unknown, -1 (data.unknown_labels) are left out" in heard[0]
    assert sum(map(int, re.findall(r"of (\d+) classes", findings[0].sentence))) == 7


def test_bursts_are_noticed(tmp_path: Path) -> None:
    """Each class has three scenes, and three photos of each that differ by hardly anything."""
    random = np.random.default_rng(0)
    for label in range(10):
        (tmp_path / str(label)).mkdir()
        for scene in range(3):
            pixels = random.integers(40, 216, (8, 8, 3))
            for shot in range(3):
                noisy = np.clip(pixels + random.integers(-12, 13, pixels.shape), 0, 255).astype(np.uint8)
                image = Image.fromarray(noisy).resize((64, 64), Image.Resampling.BICUBIC)
                image.save(tmp_path / str(label) / f"{scene}-{shot}.png")
    warnings = [finding.sentence for finding in check(tmp_path) if finding.warns]
    assert len(warnings) == 3
    assert all("100 % of the items have near copies in their own class" in sentence for sentence in warnings)
    assert "--exclude-same" in warnings[0]


def test_vectors_under_two_labels_are_named(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    labels = np.repeat([f"c{k}" for k in range(10)], 6)
    vectors = np.repeat(draw.normal(size=(10, 16)), 6, axis=0) + 0.5 * draw.normal(size=(60, 16))
    vectors[59] = vectors[0] + 1e-3
    np.savez(tmp_path / "v.npz", embeddings=vectors, labels=labels)
    findings = check(tmp_path / "v.npz", kind="embeddings")
    [near] = [finding.sentence for finding in findings if "under two labels" in finding.sentence]
    assert near.startswith("2 items are nearly the same under two labels")
    assert " 59" in near
    assert " 0" in near


@pytest.mark.parametrize(
    ("classes", "split", "says"),
    [
        (10, (0.6, 0.2, 0.2), "4 classes to choose thresholds on .* too few for any operating point"),
        (68, (0.6, 0.2, 0.2), "2[67] classes to choose thresholds on .* will be estimated and proven"),
        (40, (0.6, 0.2, 0.2), r"16 .* estimated, with wide intervals; a proof takes 20\."),
        (40, (0.6, 0.2, 0.2), r"A split of 0\.5 / 0\.35 / 0\.15 would carry proven points"),
        (100, (0.5, 0.5, 0.0), r"50 classes to choose thresholds on \(50 of validation\): .* proven"),
    ],
)
def test_the_points_that_a_split_will_carry_are_said(
    tmp_path: Path, classes: int, split: tuple[float, float, float], says: str
) -> None:
    rows = [f"{label},{label + number / 10},1.0" for label in range(classes) for number in range(4)]
    (tmp_path / "rows.csv").write_text("\n".join(["label,a,b", *rows]) + "\n")
    parts = dict(zip(("train", "validation", "test"), split, strict=True))
    findings = check(tmp_path / "rows.csv", kind="table", split=parts)
    assert re.search(says, " ".join(finding.sentence for finding in findings))
