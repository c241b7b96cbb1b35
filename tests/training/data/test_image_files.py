"""Image files to items: classes from folders, zips in place, broken images by name."""

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

from api_schemas.data_config import DataConfig
from common.errors import InputError
from tests.training.runs import EVERYTHING, load_made, make_data
from training.data.image_files import find_images
from training.data.load_data import load_data


def test_the_class_is_the_folder_relative_to_the_root(drawings: Path) -> None:
    files = find_images([drawings])
    assert len(files) == 90
    assert files[0].label == "alphabet0/letter00"
    assert files[0].name == "alphabet0/letter00/0.png"


def test_a_zip_gives_what_the_folder_gives(drawings: Path, zipped: Path) -> None:
    folder, archive = load_made(drawings), load_made(zipped)
    for name, items in folder.get_parts().items():
        zipped = archive.get_parts()[name]
        np.testing.assert_array_equal(items.inputs, zipped.inputs)
        np.testing.assert_array_equal(items.ids, zipped.ids)
        np.testing.assert_array_equal(items.labels, zipped.labels)
    assert folder.preprocessing == archive.preprocessing


def test_several_roots_keep_their_items_apart(drawings: Path, zipped: Path, tmp_path: Path) -> None:
    splits = load_data(DataConfig(path=[str(drawings), str(zipped)]))
    ids = np.concatenate([items.ids for items in splits.get_parts().values()])
    assert len(np.unique(ids)) == 180


def write_images(folder: Path, labels: str) -> None:
    """A black and a grey image of each label."""
    for label in labels:
        (folder / label).mkdir()
        for number in range(2):
            Image.new("L", (12, 12), number * 100).save(folder / label / f"{number}.png")


def make_broken_png() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (12, 12)).save(buffer, "PNG")
    return buffer.getvalue()[:40]


def test_a_broken_image_is_named_or_skipped(tmp_path: Path) -> None:
    write_images(tmp_path, "abc")
    (tmp_path / "b" / "bad.png").write_bytes(make_broken_png())
    with pytest.raises(InputError, match=r"b/bad\.png cannot be used: .*broken=skip"):
        load_made(tmp_path, split=EVERYTHING)
    messages: list[str] = []
    splits = load_data(make_data(tmp_path, split=EVERYTHING, broken="skip"), say=messages.append)
    assert len(splits.train) == 6
    assert messages == ["Skipped 1 broken images: b/bad.png."]
    for file in tmp_path.rglob("*.png"):
        file.write_bytes(make_broken_png())
    with pytest.raises(InputError, match=r"a/0\.png and every other image that was tried is broken"):
        load_made(tmp_path, split=EVERYTHING, broken="skip")


def test_parts_are_looked_at_again_without_their_broken_images(tmp_path: Path) -> None:
    rows = ["path,label,split"]
    for number in range(10):
        Image.new("L", (12, 12), number * 20).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{number // 2},{'train' if number < 6 else 'validation'}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    data = make_data(tmp_path / "list.csv", split={"by": "column"}, broken="skip")
    assert load_data(data).validation is not None
    for number in (6, 8):
        (tmp_path / f"{number}.png").write_bytes(make_broken_png())
    with pytest.raises(
        InputError, match=r"list\.csv without its broken images: 2 items of 2 classes are left"
    ):
        load_data(data)
    for number in (7, 9):
        (tmp_path / f"{number}.png").write_bytes(make_broken_png())
    with pytest.raises(InputError, match=r"list\.csv: every image for validation is broken, e\.g\. 6\.png"):
        load_data(data)


def test_what_pillow_cannot_turn_or_convert_is_broken_too(tmp_path: Path) -> None:
    write_images(tmp_path, "ab")
    Image.new("LAB", (12, 12), (255, 128, 128)).save(tmp_path / "a" / "white.tif")
    splits = load_made(tmp_path, split=EVERYTHING, colour="grey")
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
        with pytest.raises(InputError, match=rf"b/{name} cannot be used: the image's .*broken=skip"):
            load_made(tmp_path, split=EVERYTHING)
        messages: list[str] = []
        assert (
            len(load_data(make_data(tmp_path, split=EVERYTHING, broken="skip"), say=messages.append).train)
            == 5
        )
        assert messages == [f"Skipped 1 broken images: b/{name}."]
        (tmp_path / "b" / name).unlink()
    for file in tmp_path.rglob("*.*"):
        file.unlink()
        save(file.with_suffix(".tif"))
    with pytest.raises(InputError, match=r"every other image that was tried is broken\. .*32-bit or signed"):
        load_made(tmp_path, split=EVERYTHING)


def test_an_image_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path, "ab")
    Image.new("1", (12_000, 12_000)).save(tmp_path / "b" / "2.png")
    with pytest.raises(
        InputError, match=r"b/2\.png cannot be used: the image has 12000 x 12000 pixels, at most"
    ):
        load_made(tmp_path, split=EVERYTHING)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no images"),
        ({"notes.txt": 1}, "holds no images"),
        ({"loose.png": 1}, "is in no class folder"),
        ({"a/0.png": 1, "a/1.png": 1}, "one class only, 'a'"),
        ({"a/0.png": 1, "b/1.png": 1}, "no class with two items"),
    ],
)
def test_an_unusable_folder_is_one_sentence(tmp_path: Path, files: dict[str, int], message: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (12, 12)).save(tmp_path / name, "PNG")
    with pytest.raises(InputError, match=message) as refused:
        load_made(tmp_path)
    assert str(tmp_path) in str(refused.value)
    assert str(refused.value).count("\n") == 0


def test_paths_that_are_neither_folder_nor_zip(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none does not exist"):
        load_made(tmp_path / "none")
    (tmp_path / "cut.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"cut\.zip is neither a folder, a zip"):
        load_made(tmp_path / "cut.zip")
    (tmp_path / "text").write_text("x")
    with pytest.raises(InputError, match=r"neither a folder, a zip"):
        load_made(tmp_path / "text")


def pack(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def set_field(archive: bytes, position: int, value: int) -> bytes:
    """The last entry's flags (position 6) or method (8) set, in both of its headers."""
    changed = bytearray(archive)
    for header, offset in ((b"PK\3\4", position), (b"PK\1\2", position + 2)):
        changed[archive.rindex(header) + offset] = value
    return bytes(changed)


@pytest.fixture
def pictures() -> dict[str, bytes]:
    """Six images of three classes, as a zip would hold them; the last is the largest."""
    pictures_by_name = {}
    for number in range(6):
        buffer = io.BytesIO()
        noise = np.random.default_rng(number).integers(0, 256, (12 + number, 12 + number), dtype=np.uint8)
        Image.fromarray(noise).save(buffer, "BMP")
        pictures_by_name[f"{'abc'[number // 2]}/{number}.bmp"] = buffer.getvalue()
    return pictures_by_name


@pytest.mark.parametrize("harm", ["password", "method", "data", "cut", "lie"])
def test_a_damaged_entry_of_a_zip_is_named_or_skipped(
    pictures: dict[str, bytes], tmp_path: Path, harm: str
) -> None:
    intact = pack(pictures, zipfile.ZIP_STORED if harm == "cut" else zipfile.ZIP_DEFLATED)
    last, contents = intact.rindex(b"PK\3\4"), intact.index(b"PK\1\2")
    size = intact.rindex(b"PK\1\2") + 24
    damaged = {
        "password": set_field(intact, 6, 1),
        "method": set_field(intact, 8, 99),
        "data": intact[: last + 60] + b"\xff" * 40 + intact[last + 100 :],
        "cut": intact[: size - 4] + (1 << 20).to_bytes(4, "little") * 2 + intact[size + 4 :],
        "lie": intact[:size] + (20).to_bytes(4, "little") + intact[size + 4 :],
    }[harm]
    assert damaged[contents : contents + 4] == b"PK\1\2"
    (tmp_path / "a.zip").write_bytes(damaged)
    with pytest.raises(InputError, match=r"^c/5\.bmp cannot be used: .*broken=skip\.$"):
        load_made(tmp_path / "a.zip", split=EVERYTHING)
    messages: list[str] = []
    splits = load_data(make_data(tmp_path / "a.zip", split=EVERYTHING, broken="skip"), say=messages.append)
    assert len(splits.train) == 5
    assert messages == ["Skipped 1 broken images: c/5.bmp."]


def test_a_zip_without_its_table_of_contents_is_damaged(pictures: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(pack(pictures).replace(b"PK\1\2", b"PK\0\0"))
    with pytest.raises(InputError, match=r"a\.zip is a damaged zip archive: Bad magic number for central"):
        load_made(tmp_path / "a.zip")


def test_an_entry_that_would_fill_the_memory_is_not_read(pictures: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(pack(pictures))
    with (
        zipfile.ZipFile(tmp_path / "a.zip", "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("c/6.bmp", "w") as bomb,
    ):
        for _ in range(300):
            bomb.write(bytes(1 << 20))
    assert (tmp_path / "a.zip").stat().st_size < 2 << 20
    tracemalloc.start()
    with pytest.raises(InputError, match=r"c/6\.bmp cannot be used: the image has 314572800 bytes"):
        find_images([tmp_path / "a.zip"])[-1].open()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 10 << 20
    with (tmp_path / "large.bmp").open("wb") as sparse:
        sparse.truncate(300 << 20)
    (tmp_path / "list.csv").write_text("path,label\nlarge.bmp,1\n")
    with pytest.raises(InputError, match=r"large\.bmp cannot be used: the image has 314572800 bytes"):
        find_images([tmp_path / "list.csv"])[0].open()


@pytest.mark.parametrize("name", [b"caf\xe9/0.png", b"a/caf\xe9.png"])
def test_a_name_that_is_no_utf8_is_refused(drawings: Path, tmp_path: Path, name: bytes) -> None:
    shutil.copytree(drawings, tmp_path / "drawings")
    file = tmp_path / "drawings" / os.fsdecode(name)
    file.parent.mkdir(exist_ok=True)
    Image.new("L", (12, 12)).save(file)
    with pytest.raises(InputError, match=r"The name of .*caf\\udce9.* is not written in UTF-8: rename it"):
        load_made(tmp_path / "drawings")


def test_hidden_files_of_archivers_are_no_items(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("__MACOSX/a/._0.png", b"x")
        archive.writestr("a/.hidden.png", b"x")
        archive.writestr("a/0.png", b"x")
    assert [file.name for file in find_images([tmp_path / "a.zip"])] == ["a/0.png"]


def test_a_list_of_images_gives_what_the_folder_gives(drawings: Path, tmp_path: Path) -> None:
    files = sorted(drawings.rglob("*.png"))
    lines = ["path,label,writer"]
    lines += [f"{file},{file.parent.relative_to(drawings)},{number % 4}" for number, file in enumerate(files)]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    listed, folder = load_made(tmp_path / "list.csv"), load_made(drawings)
    np.testing.assert_array_equal(listed.train.inputs, folder.train.inputs)
    np.testing.assert_array_equal(listed.train.labels, folder.train.labels)
    assert "writer" in listed.train.metadata
    rows = [line.split(",") for line in lines[1:]]
    columns = dict(zip(("path", "label", "writer"), map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table(columns), tmp_path / "list.parquet")
    by_parquet = load_made(tmp_path / "list.parquet")
    np.testing.assert_array_equal(by_parquet.train.inputs, folder.train.inputs)
    assert by_parquet.train.ids.tolist() == listed.train.ids.tolist()
    (tmp_path / "list.csv").write_text("path,label\nnone.png,1\nnone.png,2\nnone.png,2\nnone.png,3\n")
    with pytest.raises(InputError, match=r"none\.png"):
        load_made(tmp_path / "list.csv")


@pytest.mark.parametrize("suffix", [".jfif", ".JPE", ".pgm", ".pbm", ".dib", ".apng"])
def test_what_is_trained_on_is_taken_in_serving_too(tmp_path: Path, suffix: str) -> None:
    write_images(tmp_path, "ab")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 12), dtype=np.uint8))
    written = {".pgm": "PPM", ".pbm": "PPM", ".dib": "BMP", ".apng": "PNG"}.get(suffix, "JPEG")
    image.convert("1" if suffix == ".pbm" else "L").save(tmp_path / "a" / f"other{suffix}", written)
    splits = load_made(tmp_path, split=EVERYTHING)
    row = splits.train.ids.tolist().index(f"a/other{suffix}")
    served = splits.preprocessing.prepare([(tmp_path / "a" / f"other{suffix}").read_bytes()])
    np.testing.assert_array_equal(served, splits.preprocessing.normalise(splits.train.inputs[[row]]))


@pytest.mark.parametrize("kind", ["TGA", "ICNS", "AVIF", "JPEG2000"])
def test_kinds_that_serving_refuses_are_not_trained_on_under_another_name(tmp_path: Path, kind: str) -> None:
    write_images(tmp_path, "ab")
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (9, 99, 200)).save(buffer, kind)
    (tmp_path / "a" / "other.png").write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match=r"a/other.png cannot be used: this is not an image; PNG"):
        load_made(tmp_path, split=EVERYTHING)
    splits = load_made(tmp_path, broken="skip", split=EVERYTHING)
    assert "a/other.png" not in splits.train.ids.tolist()
    with pytest.raises(InputError, match="not an image; PNG"):
        splits.preprocessing.prepare([buffer.getvalue()])


def test_linked_classes_and_files_are_read_and_circles_are_not_followed(tmp_path: Path) -> None:
    elsewhere, root = tmp_path / "elsewhere", tmp_path / "root"
    elsewhere.mkdir()
    root.mkdir()
    write_images(root, "ab")
    write_images(elsewhere, "cd")
    (root / "c").symlink_to(elsewhere / "c")
    (root / "b" / "linked.png").symlink_to(elsewhere / "d" / "0.png")
    (root / "a" / "circle").symlink_to(root)
    files = find_images([root])
    assert [file.name for file in files] == [
        "a/0.png",
        "a/1.png",
        "b/0.png",
        "b/1.png",
        "b/linked.png",
        "c/0.png",
        "c/1.png",
    ]
    assert {file.label for file in files} == {"a", "b", "c"}
    for file in files:
        file.open()


def test_what_was_not_read_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, "ab")
    for name in ("a/0.heic", "a/1.avif", "b/notes.txt", "b/Thumbs.db", "b/.hidden.png"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "lost").mkdir()
    (tmp_path / "lost" / "only.HEIC").write_bytes(b"x")
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    heard: list[str] = []
    assert len(find_images([tmp_path], say=heard.append)) == 4
    [sentence] = heard
    assert (
        "5 files were not read: a/0.heic, a/1.avif, a/gone.png (a link to nothing), b/notes.txt" in sentence
    )
    assert "save others, such as .heic or .avif, as JPEG or PNG" in sentence
    assert sentence.endswith("No image was read of lost.")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in ("a/0.png", "a/1.png", "b/0.png", "b/notes.txt", "lost/only.HEIC"):
            archive.write(tmp_path / name, name)
    find_images([tmp_path / "all.zip"], say=heard.append)
    assert "2 files were not read: b/notes.txt, lost/only.HEIC" in heard[1]
    assert "No image was read of lost" in heard[1]
    empty = tmp_path / "lost"
    with pytest.raises(InputError, match=r"holds no images.* 1 file was not read: only.HEIC"):
        find_images([empty])


def test_a_list_names_files_in_any_unicode_form(tmp_path: Path) -> None:
    write_images(tmp_path, "ab")
    (tmp_path / "a" / "0.png").rename(tmp_path / "a" / "cafe\u0301.png")
    (tmp_path / "list.csv").write_text(
        "path,label\na/caf\xe9.png,a\na/1.png,a\nb/0.png,b\nb/1.png,b\n", "utf-8"
    )
    files = find_images([tmp_path / "list.csv"])
    assert files[0].open().size == (12, 12)
    assert [file.folder for file in files] == ["a", "a", "b", "b"]


def test_times_come_from_the_camera_or_the_file(tmp_path: Path) -> None:
    write_images(tmp_path, "ab")
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2024:01:31 12:34:56"
    Image.new("L", (12, 12), 7).save(tmp_path / "a" / "taken.jpg", exif=exif)
    os.utime(tmp_path / "b" / "0.png", (1_700_000_000, 1_700_000_000))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr(
            zipfile.ZipInfo("b/0.png", (2023, 5, 6, 7, 8, 10)), (tmp_path / "b" / "0.png").read_bytes()
        )
        archive.write(tmp_path / "a" / "taken.jpg", "a/taken.jpg")
    times = {
        file.name: str(file.read_time())
        for path in (tmp_path, tmp_path / "all.zip")
        for file in find_images([path])
        if file.name in ("a/taken.jpg", "b/0.png") or path.suffix
    }
    assert times == {"a/taken.jpg": "2024-01-31T12:34:56", "b/0.png": "2023-05-06T07:08:10"}
    assert str(find_images([tmp_path])[3].read_time()) == "2023-11-14T22:13:20"
    items = load_made(tmp_path, file_times=True, split=EVERYTHING).train
    assert "file_time" in items.metadata
    assert "file_time" not in load_made(tmp_path, split=EVERYTHING).train.metadata
