"""Files to items: classes from folders, zips in place, broken input by name."""

from __future__ import annotations

import io
import os
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from api_schemas.config import Config, DataConfig
from api_schemas.preprocessing import ImageInput
from common.errors import InputError
from embeddings.embedding_set import EmbeddingSet
from embeddings.files import save_embeddings
from encoder.inputs.image_input import ImagePreprocessing
from training.data.glyphs import MIN_PICTURES, draw_glyphs
from training.data.image_files import find_images
from training.data.image_rule import fit_normalisation
from training.data.load_data import load_data, load_items
from training.loop.train import train

MakeConfig = Callable[..., Config]
GREY = ImageInput(mode="L", height=12, width=12, mean=[1.0], std=[1.0])


def images(path: Path, **settings: object) -> DataConfig:
    return DataConfig.model_validate({"path": str(path), **settings})


def test_the_class_is_the_folder_relative_to_the_root(drawings: Path) -> None:
    files = find_images([drawings])
    assert len(files) == 90
    assert files[0].label == "alphabet0/letter00"
    assert files[0].name == "alphabet0/letter00/0.png"


def test_a_zip_gives_what_the_folder_gives(drawings: Path, zipped: Path) -> None:
    folder, archive = load_data(images(drawings)), load_data(images(zipped))
    for name, items in folder.parts().items():
        other = archive.parts()[name]
        np.testing.assert_array_equal(items.inputs, other.inputs)
        np.testing.assert_array_equal(items.ids, other.ids)
        np.testing.assert_array_equal(items.labels, other.labels)
    assert folder.preprocessing == archive.preprocessing


def test_several_roots_keep_their_items_apart(drawings: Path, zipped: Path, tmp_path: Path) -> None:
    splits = load_data(DataConfig(path=[str(drawings), str(zipped)]))
    ids = np.concatenate([items.ids for items in splits.parts().values()])
    assert len(np.unique(ids)) == 180


def test_parts_share_no_class_and_lose_no_item(drawings: Path) -> None:
    parts = load_data(images(drawings)).parts()
    assert [items.n_classes for items in parts.values()] == [9, 3, 3]
    labels = [set(items.labels.tolist()) for items in parts.values()]
    assert not labels[0] & labels[1] | labels[0] & labels[2] | labels[1] & labels[2]
    assert sum(len(items) for items in parts.values()) == 90


def test_the_split_follows_from_its_seed(drawings: Path) -> None:
    first, again = load_data(images(drawings)), load_data(images(drawings))
    other = load_data(images(drawings, split={"seed": 1}))
    np.testing.assert_array_equal(first.train.ids, again.train.ids)
    assert set(first.train.labels) != set(other.train.labels)


def test_every_class_is_in_the_test_part_of_one_fold(drawings: Path) -> None:
    tested: list[str] = []
    for fold in range(5):
        test = load_data(images(drawings, split={"folds": 5, "fold": fold})).test
        assert test is not None
        tested += np.unique(test.labels).tolist()
    assert len(tested) == len(set(tested)) == 15


def test_a_part_may_be_empty(drawings: Path) -> None:
    splits = load_data(images(drawings, split={"train": 1, "validation": 0, "test": 0}))
    assert splits.validation is None
    assert splits.test is None
    assert len(splits.train) == 90


def test_a_separate_test_set_that_shares_classes_is_said(drawings: Path) -> None:
    said: list[str] = []
    splits = load_data(images(drawings, test_path=str(drawings)), say=said.append)
    assert splits.test is not None
    assert len(splits.test) == 90
    assert any("are also trained on" in sentence for sentence in said)


def test_the_size_is_the_median_capped_and_grey_is_seen(drawings: Path) -> None:
    rule = load_data(images(drawings)).preprocessing.rule
    assert rule.kind == "image"
    assert (rule.mode, rule.height, rule.width) == ("L", 12, 12)
    assert rule.mean == [1.0], "white paper must become 0"
    assert load_data(images(drawings, image_size=20)).preprocessing.shape == (1, 20, 20)


def test_large_images_are_capped_and_colour_is_kept(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for label in "abc":
        for number in range(2):
            (tmp_path / label).mkdir(exist_ok=True)
            pixels = random.integers(0, 255, (100, 120, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / label / f"{number}.png")
    splits = load_data(images(tmp_path, split={"train": 1, "validation": 0, "test": 0}))
    rule = splits.preprocessing.rule
    assert splits.train.inputs.shape == (6, 3, 64, 64)
    assert rule.kind == "image"
    assert rule.resize == "pad", "a stretched photo is another picture"


def test_statistics_are_those_of_the_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 3, 8, 8), dtype=np.uint8)
    rule = fit_normalisation(ImageInput(mode="RGB", height=8, width=8, mean=[0.0] * 3, std=[1.0] * 3), pixels)
    np.testing.assert_allclose(rule.mean, pixels.mean(axis=(0, 2, 3)) / 255, atol=1e-5)
    np.testing.assert_allclose(rule.std, (pixels / 255).std(axis=(0, 2, 3)), atol=1e-5)


def test_one_picture_in_every_form_gives_the_same_pixels(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 2, (12, 12), dtype=np.uint8) * 255
    picture = Image.fromarray(grey)
    palette = Image.fromarray((grey > 0).astype(np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 255, 255, 255])
    turned, exif = picture.transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    forms: dict[str, Image.Image] = {
        "grey.png": picture,
        "palette.png": palette,
        "one bit.png": picture.convert("1"),
        "colour.bmp": picture.convert("RGB"),
        "opaque.png": picture.convert("RGBA"),
        "deep.png": Image.fromarray(grey.astype(np.uint16) * 257),
        "deep.tif": Image.fromarray(grey.astype(np.uint16) * 257),
        "palette.gif": palette,
    }
    for label in "ab":
        (tmp_path / label).mkdir()
        for name, image in forms.items():
            image.save(tmp_path / label / name)
        turned.save(tmp_path / label / "turned.png", exif=exif)
    items = load_data(images(tmp_path, split={"train": 1, "validation": 0, "test": 0})).train
    assert items.inputs.shape == (18, 1, 12, 12), "black and white is grey, whatever holds it"
    for name, pixels in zip(items.ids, items.inputs, strict=True):
        np.testing.assert_array_equal(pixels[0], grey, err_msg=str(name))


def broken_png() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (12, 12)).save(buffer, "PNG")
    return buffer.getvalue()[:40]


def test_a_broken_image_is_named_or_skipped(tmp_path: Path) -> None:
    for label in "abc":
        (tmp_path / label).mkdir()
        for number in range(2):
            Image.new("L", (12, 12), number * 100).save(tmp_path / label / f"{number}.png")
    (tmp_path / "b" / "bad.png").write_bytes(broken_png())
    everything = {"train": 1, "validation": 0, "test": 0}
    with pytest.raises(InputError, match=r"b/bad\.png is broken: .*broken=skip"):
        load_data(images(tmp_path, split=everything))
    said: list[str] = []
    splits = load_data(images(tmp_path, split=everything, broken="skip"), say=said.append)
    assert len(splits.train) == 6
    assert said == ["Skipped 1 broken images: b/bad.png."]
    for file in tmp_path.rglob("*.png"):
        file.write_bytes(broken_png())
    with pytest.raises(InputError, match=r"a/0\.png and every other image that was tried is broken"):
        load_data(images(tmp_path, split=everything, broken="skip"))


def test_parts_are_looked_at_again_without_their_broken_images(tmp_path: Path) -> None:
    rows = ["path,label,split"]
    for number in range(10):
        Image.new("L", (12, 12), number * 20).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{number // 2},{'train' if number < 6 else 'validation'}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    data = images(tmp_path / "list.csv", split={"by": "column"}, broken="skip")
    assert load_data(data).validation is not None
    for number in (6, 8):
        (tmp_path / f"{number}.png").write_bytes(broken_png())
    with pytest.raises(
        InputError, match=r"list\.csv without its broken images: 2 items of 2 classes are left"
    ):
        load_data(data)
    for number in (7, 9):
        (tmp_path / f"{number}.png").write_bytes(broken_png())
    with pytest.raises(InputError, match=r"list\.csv: every image for validation is broken"):
        load_data(data)


def test_what_pillow_cannot_turn_or_convert_is_broken_too(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        for number in range(2):
            Image.new("L", (12, 12), number * 100).save(tmp_path / label / f"{number}.png")
    Image.new("LAB", (12, 12), (255, 128, 128)).save(tmp_path / "a" / "white.tif")
    everything = {"train": 1, "validation": 0, "test": 0}
    splits = load_data(images(tmp_path, split=everything, colour="grey"))
    white = splits.train.inputs[splits.train.ids == "a/white.tif"]
    assert white.shape == (1, 1, 12, 12)
    assert white.min() >= 250
    bad: dict[str, Callable[[Path], None]] = {
        "turned.webp": lambda path: Image.new("RGB", (12, 12)).save(path, exif=b"Exif\0\0MMxx"),
        "floats.tif": lambda path: Image.new("F", (12, 12), 0.5).save(path),
        "signed.tif": lambda path: Image.new("I", (12, 12), 200).save(path),
    }
    for name, save in bad.items():
        save(tmp_path / "b" / name)
        with pytest.raises(InputError, match=rf"b/{name} is broken: the image's .*broken=skip"):
            load_data(images(tmp_path, split=everything))
        said: list[str] = []
        assert len(load_data(images(tmp_path, split=everything, broken="skip"), say=said.append).train) == 5
        assert said == [f"Skipped 1 broken images: b/{name}."]
        (tmp_path / "b" / name).unlink()
    for file in tmp_path.rglob("*.*"):
        file.unlink()
        save(file.with_suffix(".tif"))
    with pytest.raises(InputError, match=r"every other image that was tried is broken\. .*32-bit or signed"):
        load_data(images(tmp_path, split=everything))


def test_an_image_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        for number in range(2):
            Image.new("1", (12, 12)).save(tmp_path / label / f"{number}.png")
    Image.new("1", (12_000, 12_000)).save(tmp_path / "b" / "2.png")
    with pytest.raises(InputError, match=r"b/2\.png is too large to be decoded safely: scale it down"):
        load_data(images(tmp_path, split={"train": 1, "validation": 0, "test": 0}))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "holds no images"),
        ({"notes.txt": 1}, "holds no images"),
        ({"loose.png": 1}, "is in no class folder"),
        ({"a/0.png": 1, "a/1.png": 1}, "one class only, 'a'"),
        ({"a/0.png": 1, "b/1.png": 1}, "no class with two items"),
    ],
)
def test_a_folder_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, files: dict[str, int], said: str
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (12, 12)).save(tmp_path / name, "PNG")
    with pytest.raises(InputError, match=said) as refused:
        load_data(images(tmp_path))
    assert str(tmp_path) in str(refused.value)
    assert str(refused.value).count("\n") == 0


def test_a_validation_part_that_cannot_be_measured_is_refused_before_training(drawings: Path) -> None:
    with pytest.raises(InputError, match=r"classes are left for validation.*data\.split\.validation"):
        load_data(images(drawings, split={"train": 14, "validation": 1, "test": 0}))


def test_paths_that_are_neither_folder_nor_zip(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none does not exist"):
        load_data(images(tmp_path / "none"))
    (tmp_path / "cut.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"cut\.zip is neither a folder, a zip"):
        load_data(images(tmp_path / "cut.zip"))
    (tmp_path / "text").write_text("x")
    with pytest.raises(InputError, match=r"neither a folder, a zip"):
        load_data(images(tmp_path / "text"))


def packed(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def with_field(archive: bytes, place: int, value: int) -> bytes:
    """The last entry's flags (place 6) or method (8) set, in both of its headers."""
    changed = bytearray(archive)
    for header, at in ((b"PK\3\4", place), (b"PK\1\2", place + 2)):
        changed[archive.rindex(header) + at] = value
    return bytes(changed)


@pytest.fixture
def pictures() -> dict[str, bytes]:
    """Six images of three classes, as a zip would hold them; the last is the largest."""
    found = {}
    for number in range(6):
        buffer = io.BytesIO()
        noise = np.random.default_rng(number).integers(0, 256, (12 + number, 12 + number), dtype=np.uint8)
        Image.fromarray(noise).save(buffer, "BMP")
        found[f"{'abc'[number // 2]}/{number}.bmp"] = buffer.getvalue()
    return found


@pytest.mark.parametrize("harm", ["password", "method", "data", "cut", "lie"])
def test_a_damaged_entry_of_a_zip_is_named_or_skipped(
    pictures: dict[str, bytes], tmp_path: Path, harm: str
) -> None:
    whole = packed(pictures, zipfile.ZIP_STORED if harm == "cut" else zipfile.ZIP_DEFLATED)
    last, contents = whole.rindex(b"PK\3\4"), whole.index(b"PK\1\2")
    size = whole.rindex(b"PK\1\2") + 24
    damaged = {
        "password": with_field(whole, 6, 1),
        "method": with_field(whole, 8, 99),
        "data": whole[: last + 60] + b"\xff" * 40 + whole[last + 100 :],
        "cut": whole[: size - 4] + (1 << 20).to_bytes(4, "little") * 2 + whole[size + 4 :],
        "lie": whole[:size] + (20).to_bytes(4, "little") + whole[size + 4 :],
    }[harm]
    assert damaged[contents : contents + 4] == b"PK\1\2"
    (tmp_path / "a.zip").write_bytes(damaged)
    everything = {"train": 1, "validation": 0, "test": 0}
    with pytest.raises(InputError, match=r"^c/5\.bmp is broken: .*broken=skip\.$"):
        load_data(images(tmp_path / "a.zip", split=everything))
    said: list[str] = []
    splits = load_data(images(tmp_path / "a.zip", split=everything, broken="skip"), say=said.append)
    assert len(splits.train) == 5
    assert said == ["Skipped 1 broken images: c/5.bmp."]


def test_a_zip_without_its_table_of_contents_is_damaged(pictures: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(packed(pictures).replace(b"PK\1\2", b"PK\0\0"))
    with pytest.raises(InputError, match=r"a\.zip is a damaged zip archive: Bad magic number for central"):
        load_data(images(tmp_path / "a.zip"))


def test_an_entry_that_would_fill_the_memory_is_not_read(pictures: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(packed(pictures))
    with (
        zipfile.ZipFile(tmp_path / "a.zip", "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("c/6.bmp", "w") as bomb,
    ):
        for _ in range(300):
            bomb.write(bytes(1 << 20))
    assert (tmp_path / "a.zip").stat().st_size < 2 << 20
    tracemalloc.start()
    with pytest.raises(InputError, match=r"c/6\.bmp is too large to be decoded safely"):
        find_images([tmp_path / "a.zip"])[-1].open()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 10 << 20
    with (tmp_path / "large.bmp").open("wb") as sparse:
        sparse.truncate(300 << 20)
    (tmp_path / "list.csv").write_text("path,label\nlarge.bmp,1\n")
    with pytest.raises(InputError, match=r"large\.bmp is too large to be decoded safely"):
        find_images([tmp_path / "list.csv"])[0].open()


@pytest.mark.parametrize("name", [b"caf\xe9/0.png", b"a/caf\xe9.png"])
def test_a_name_that_is_no_utf8_is_refused(drawings: Path, tmp_path: Path, name: bytes) -> None:
    shutil.copytree(drawings, tmp_path / "drawings")
    file = tmp_path / "drawings" / os.fsdecode(name)
    file.parent.mkdir(exist_ok=True)
    Image.new("L", (12, 12)).save(file)
    with pytest.raises(InputError, match=r"The name of .*caf\\udce9.* is not written in UTF-8: rename it"):
        load_data(images(tmp_path / "drawings"))


def test_hidden_files_of_archivers_are_no_items(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("__MACOSX/a/._0.png", b"x")
        archive.writestr("a/.hidden.png", b"x")
        archive.writestr("a/0.png", b"x")
    assert [file.name for file in find_images([tmp_path / "a.zip"])] == ["a/0.png"]


def test_embeddings_are_read_with_their_metadata(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    items = EmbeddingSet.from_arrays(
        random.normal(size=(40, 5)), np.arange(40) % 10, metadata={"camera": np.arange(40) % 2}
    )
    save_embeddings(items, tmp_path / "e.npz")
    splits = load_data(images(tmp_path / "e.npz", kind="embeddings"))
    assert splits.preprocessing.shape == (5,)
    assert splits.train.inputs.dtype == np.float32
    assert set(splits.train.metadata) == {"camera"}
    by_camera = load_data(
        images(
            tmp_path / "e.npz",
            kind="embeddings",
            group_column="camera",
            split={"by": "group", "train": 1, "validation": 1, "test": 0},
        )
    )
    assert by_camera.validation is not None
    assert set(by_camera.train.metadata["camera"]) != set(by_camera.validation.metadata["camera"])


def test_a_parquet_of_embeddings_trains_as_an_archive_does(small: MakeConfig, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = np.arange(60) % 12
    vectors = (random.normal(size=(12, 6))[labels] + 0.1 * random.normal(size=(60, 6))).astype(np.float32)
    np.savez(tmp_path / "e.npz", embeddings=vectors, labels=labels)
    rows = pa.array(vectors.tolist(), pa.list_(pa.float32()))
    pq.write_table(pa.table({"embedding": rows, "label": labels}), tmp_path / "e.parquet")
    found = []
    for name in ("e.npz", "e.parquet"):
        data = {"kind": "embeddings", "path": str(tmp_path / name)}
        run = train(
            small(data=data, model={"backbone": "linear", "embedding_dim": 4}), tmp_path / f"run {name}"
        )
        found.append(run.embeddings("test"))
    assert found[0] is not None
    assert found[1] is not None
    np.testing.assert_array_equal(found[0].vectors, found[1].vectors)
    assert found[0].labels.tolist() == found[1].labels.tolist()


def test_folds_and_time_leave_no_item_out_or_twice(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    np.savez(
        tmp_path / "e.npz",
        embeddings=random.normal(size=(70, 4)),
        labels=np.arange(70) % 14,
        day=random.permutation(70),
    )
    for split in ({"folds": 7, "fold": 3}, {"by": "time"}):
        data = images(tmp_path / "e.npz", kind="embeddings", time_column="day", split=split)
        parts = load_data(data).parts()
        ids = np.concatenate([items.ids for items in parts.values()])
        assert len(ids) == len(set(ids)) == 70
        if "folds" in split:
            assert [items.n_classes for items in parts.values()] == [10, 2, 2]
        else:
            days = [items.metadata["day"] for items in parts.values()]
            assert [len(one) for one in days] == [42, 14, 14]
            assert days[0].max() < days[1].min() <= days[1].max() < days[2].min()


def test_glyphs_are_distinct_characters_in_many_faces() -> None:
    pixels, labels, ids = draw_glyphs()
    assert pixels.shape[1:] == (28, 28)
    assert len(pixels) == len(labels) == len(set(ids))
    classes, counts = np.unique(labels, return_counts=True)
    assert 800 <= len(classes) <= 2_300
    assert counts.min() >= MIN_PICTURES
    names = set(labels)
    assert "U+0041 A" in names
    assert not names & {"U+0391 Α", "U+0410 А"}, "they look like Latin A"
    assert len(names & {"U+0145 Ņ", "U+1E46 Ṇ"}) <= 1, "nobody tells them apart at this size"
    assert len({image.tobytes() for image in pixels}) == len(pixels), "no picture is there twice"


def test_an_image_that_comes_twice_is_refused_before_one_is_decoded(
    drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.data.image_files.ImageFile.open", None)
    names = sorted(path.relative_to(drawings).as_posix() for path in drawings.rglob("*.png"))
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((drawings / name).read_bytes())
    lines = [f"{name},{Path(name).parent.as_posix()}" for name in [*names, names[4]]]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *lines]))
    said = rf"list\.csv: images 4 and 90 are both called '{names[4]}': name each image once"
    with pytest.raises(InputError, match=said):
        load_data(images(tmp_path / "list.csv"))
    with pytest.raises(InputError, match=said):
        load_items([tmp_path / "list.csv"], images(drawings), ImagePreprocessing(GREY))
    (tmp_path / "other" / "drawings").mkdir(parents=True)
    same = [tmp_path / "other" / drawings.name, drawings]
    shutil.copytree(drawings, same[0])
    with pytest.raises(InputError, match=r"images 0 and 90 are both called .* different names"):
        load_data(DataConfig(path=[str(path) for path in same]))


def test_an_item_may_be_in_two_parts(drawings: Path) -> None:
    splits = load_data(images(drawings, test_path=str(drawings)))
    assert splits.test is not None
    assert set(splits.train.ids) <= set(splits.test.ids)


@pytest.mark.parametrize("name", ["embeddings", "labels", "ids"])
def test_columns_that_an_embeddings_file_has_itself_are_refused_before_training(
    drawings: Path, tmp_path: Path, name: str
) -> None:
    files = sorted(drawings.rglob("*.png"))
    lines = [f"{path},{path.parent.name},x" for path in files]
    (tmp_path / "list.csv").write_text("\n".join([f"path,label,{name}", *lines]))
    with pytest.raises(InputError, match=rf"list\.csv: a metadata column cannot be called '{name}'"):
        load_data(images(tmp_path / "list.csv"))
    (tmp_path / "list.csv").write_text("\n".join(["path,label,file", *lines]))
    assert load_data(images(tmp_path / "list.csv")).train.metadata["file"][0] == "x"
