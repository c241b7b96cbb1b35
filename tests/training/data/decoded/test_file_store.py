"""Decoded images in memory, in a cache on disk, or nowhere: the same pixels, whatever happens on the way."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from api_schemas.data_config import DataConfig
from common.errors import InputError
from tests.training.runs import EVERYTHING, MakeConfig, assert_equal_bit_for_bit, load_made
from training.data.decoded import file_store, row_cache
from training.data.decoded.row_cache import CachedRows, RowCache, make_room
from training.data.image_files import ImageFile
from training.data.items import Splits
from training.data.load_data import load_data
from training.data.row_store import ComputedRows
from training.loop.train import train
from training.run_folder.run_folder import compute_fingerprint

ON_DISK, NOWHERE = {"memory_gb": 0}, {"memory_gb": 0, "cache_gb": 0}


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of all caches."""
    monkeypatch.setenv("LIMEN_CACHE", str(tmp_path / "caches"))
    return tmp_path / "caches" / "decoded"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files that are decoded for a cache, from now on."""
    names: list[str] = []
    real = file_store.FileStore._read

    def record(store: object, cache: RowCache, named: tuple[ImageFile, bytes | None]) -> object:
        key, rows = real(store, cache, named)  # type: ignore[arg-type]
        names.extend([] if rows is None else [named[0].name])
        return key, rows

    monkeypatch.setattr(file_store.FileStore, "_read", record)
    return names


def assert_same(splits: Splits, others: Splits) -> None:
    """All parts hold the same items in the same order, however they are asked for."""
    assert splits.preprocessing == others.preprocessing
    for name, items in splits.get_parts().items():
        other = others.get_parts()[name]
        np.testing.assert_array_equal(other.ids, items.ids)
        np.testing.assert_array_equal(other.labels, items.labels)
        rows = np.random.default_rng(0).integers(0, len(items), 7)
        for key in (slice(None), slice(2, 5), rows, 3, np.arange(len(items)) % 2 == 0, slice(0, 0)):
            np.testing.assert_array_equal(other.inputs[key], items.inputs[key])
        half = items.subset(rows).inputs[1:3]
        np.testing.assert_array_equal(other.subset(rows).inputs[1:3], half)
    assert compute_fingerprint(splits, None) == compute_fingerprint(others, None)


@pytest.mark.parametrize("source", ["drawings", "zipped"])
def test_every_place_gives_the_same_pixels(
    source: str, caches: Path, decoded: list[str], request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(source)
    in_memory = load_made(path)
    assert isinstance(in_memory.train.inputs, np.ndarray)
    messages: list[str] = []
    data = DataConfig(path=str(path), **ON_DISK)  # type: ignore[arg-type]
    on_disk = load_data(data, say=messages.append)
    assert isinstance(on_disk.train.inputs, CachedRows)
    assert len(decoded) == 90
    assert_same(in_memory, on_disk)
    [said] = messages
    assert "90 images of 1 x 12 x 12 take 1.21e-05 GiB, more than data.memory_gb (0)" in said
    assert "GiB are free there, data.cache_gb is 50), which holds 0 already" in said
    assert_same(in_memory, load_data(data, say=messages.append))
    assert len(decoded) == 90, "nothing is decoded again"
    assert messages[1].endswith("which holds 90 already.")
    nowhere = load_data(DataConfig(path=str(path), **NOWHERE), say=messages.append)  # type: ignore[arg-type]
    assert isinstance(nowhere.train.inputs, ComputedRows)
    assert_same(in_memory, nowhere)
    assert "they are decoded again in every epoch" in messages[2]


@pytest.mark.parametrize("place", [ON_DISK, NOWHERE])
def test_training_is_the_same_bit_for_bit_and_resumes_from_any_place(
    small: MakeConfig, finished: Path, caches: Path, tmp_path: Path, place: dict[str, float]
) -> None:
    config = small()
    data = config.data.model_copy(update=place)
    run = train(config.model_copy(update={"data": data}), tmp_path / "run").path
    assert_equal_bit_for_bit(finished, run)
    shutil.copytree(finished, tmp_path / "resumed")
    (tmp_path / "resumed" / "run.json").unlink()
    train(config.model_copy(update={"data": data}), tmp_path / "resumed", resume=True)
    assert_equal_bit_for_bit(finished, tmp_path / "resumed")


def test_a_file_is_known_by_its_bytes_and_decoded_when_they_change(
    drawings: Path, caches: Path, decoded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(drawings, tmp_path / "drawings"))
    data = DataConfig(path=str(folder), split=EVERYTHING, **ON_DISK)  # type: ignore[arg-type]
    load_data(data)
    assert len(decoded) == 90
    files = sorted(folder.rglob("*.png"))
    files[0].rename(files[0].with_name("renamed.png"))
    times = files[1].stat()
    content = bytearray(files[1].read_bytes())
    other = files[2].read_bytes()
    files[1].write_bytes(other)
    os.utime(files[1], ns=(times.st_atime_ns, times.st_mtime_ns))
    decoded.clear()
    assert_same(load_made(folder, split=EVERYTHING), load_data(data))
    assert not decoded, "renamed, and a copy of what is there"
    image = Image.open(files[1]).point(lambda level: 255 - level)
    image.save(files[1])
    os.utime(files[1], ns=(times.st_atime_ns, times.st_mtime_ns))
    assert_same(load_made(folder, split=EVERYTHING), load_data(data))
    assert decoded == [files[1].relative_to(folder).as_posix()]
    files[1].write_bytes(bytes(content))


def test_files_that_did_not_change_are_not_read_again(
    drawings: Path, caches: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("training.data.labelled_files.SETTLED_NS", 0)
    folder = Path(shutil.copytree(drawings, tmp_path / "drawings"))
    data = DataConfig(path=str(folder), split=EVERYTHING, **ON_DISK)  # type: ignore[arg-type]
    first = load_data(data)
    names: list[str] = []
    real = file_store.FileStore._read

    def read(store: object, cache: RowCache, named: tuple[ImageFile, bytes | None]) -> object:
        names.append(named[0].name)
        return real(store, cache, named)  # type: ignore[arg-type]

    monkeypatch.setattr(file_store.FileStore, "_read", read)
    assert_same(first, load_data(data))
    assert not names
    changed = folder / str(first.train.ids[4])
    times = changed.stat()
    size = times.st_size
    changed.write_bytes((folder / str(first.train.ids[5])).read_bytes().ljust(size, b"\0")[:size])
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert changed.stat().st_size == size
    assert changed.stat().st_mtime_ns == times.st_mtime_ns
    again = load_data(data.model_copy(update={"broken": "skip"}))
    assert changed.relative_to(folder).as_posix() in names, "of the same size and time, but another"
    assert len(again.train) >= 89


def fill(folder: Path, kill: str) -> None:
    """Fill the cache in a process of its own, which may kill itself while it writes pixels or records."""
    file_store.MOST_TOGETHER = 8
    write, calls = row_cache._write, 0

    def stop(handle: int, content: np.ndarray, offset: int) -> None:
        nonlocal calls
        calls += 1
        if calls == {"pixels": 7, "records": 8}.get(kill):
            flat = content.view(np.uint8).reshape(-1)
            write(handle, flat[: len(flat) // 2 + 5], offset)
            os.kill(os.getpid(), signal.SIGKILL)
        write(handle, content, offset)

    row_cache._write = stop
    load_data(DataConfig(path=str(folder), memory_gb=0))


def start_filling(folder: Path, kill: str = "") -> BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=fill, args=(folder, kill))
    process.start()
    return process


def wait(process: BaseProcess) -> int | None:
    process.join()
    return process.exitcode


@pytest.mark.parametrize("kill", ["pixels", "records"])
def test_what_a_killed_process_left_is_gone_on_with(
    drawings: Path, caches: Path, decoded: list[str], kill: str
) -> None:
    assert wait(start_filling(drawings, kill)) == -signal.SIGKILL
    [pixels] = caches.glob("*/content.bin")
    assert pixels.stat().st_size > 3 * 8 * 144, "killed on the way"
    on_disk = load_data(DataConfig(path=str(drawings), **ON_DISK))  # type: ignore[arg-type]
    assert 90 - 4 * 8 <= len(decoded) <= 90 - 3 * 8
    assert_same(load_made(drawings), on_disk)
    assert pixels.stat().st_size == 90 * 144


def test_processes_take_turns_and_decode_each_image_once(drawings: Path, caches: Path) -> None:
    processes = [start_filling(drawings) for _ in range(3)]
    assert [wait(process) for process in processes] == [0, 0, 0]
    [pixels] = caches.glob("*/content.bin")
    assert pixels.stat().st_size == 90 * 144
    assert_same(load_made(drawings), load_data(DataConfig(path=str(drawings), **ON_DISK)))  # type: ignore[arg-type]


def test_a_broken_image_is_named_or_left_out_as_in_memory(
    drawings: Path, caches: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(drawings, tmp_path / "drawings"))
    names = sorted(folder.rglob("*.png"))
    for place in (ON_DISK, NOWHERE):
        names[40].write_bytes(names[40].read_bytes()[:40])
        with pytest.raises(InputError, match=rf"{names[40].name} cannot be used: this is not an image; PNG"):
            load_made(folder, **place)
        in_memory = load_made(folder, broken="skip")
        assert sum(map(len, in_memory.get_parts().values())) == 89
        assert_same(in_memory, load_made(folder, broken="skip", **place))


def test_other_sizes_and_modes_have_caches_of_their_own(drawings: Path, caches: Path) -> None:
    for settings in ({}, {"image_size": 20}, {"image_size": [20, 12]}, {"colour": "rgb"}):
        assert_same(load_made(drawings, **settings), load_made(drawings, **settings, **ON_DISK))
    abouts = [json.loads(about.read_bytes()) for about in caches.glob("*/about.json")]
    assert len(abouts) == 4
    assert {about["source"] for about in abouts} == {str(drawings)}


def make_cache(folder: Path, images: int, age: int) -> None:
    cache = RowCache(folder, (1, 10, 10), np.uint8, {"source": folder.name}, 1 << 30)
    with cache.locked():
        keys = [(bytes([row] * 16), row, 1) for row in range(images)]
        cache.append(np.zeros((images, 1, 10, 10), np.uint8), keys)
    os.utime(folder / "about.json", (age, age))


def test_caches_that_nobody_has_open_make_room_the_oldest_first(tmp_path: Path) -> None:
    for age, name in enumerate("abc", 1):
        make_cache(tmp_path / name, 10, age)  # of 1,000 bytes
    assert make_room(tmp_path, "d", 1_000, 4_000)[::2] == (True, [])
    in_use = RowCache(tmp_path / "a", (1, 10, 10), np.uint8, {}, 1 << 30)
    os.utime(tmp_path / "a" / "about.json", (1, 1))
    assert make_room(tmp_path, "d", 2_000, 4_000)[::2] == (True, ["b"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]
    assert make_room(tmp_path, "d", 3_500, 4_000)[::2] == (False, ["c"]), "a is in use"
    assert make_room(tmp_path, "a", 1_500, 1_500)[::2] == (True, []), "what it holds is counted once"
    assert make_room(tmp_path, "d", 5_000, 4_000)[::2] == (False, []), "nothing goes in vain"
    assert len(in_use) == 10


def test_a_cache_that_fills_up_says_so_and_keeps_what_it_has(
    drawings: Path, caches: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(drawings, tmp_path / "drawings"))
    data = DataConfig(path=str(folder), memory_gb=0, cache_gb=100 * 144 / 2**30)
    load_data(data)
    for path in sorted(folder.rglob("*.png"))[:50]:
        Image.open(path).point(lambda level: 255 - level).save(path)
    with pytest.raises(InputError, match=r"holds \d+ rows, of files too that changed since: .* Remove that"):
        load_data(data)
    shutil.rmtree(caches)
    assert_same(load_made(folder), load_data(data))


def test_a_damaged_cache_and_a_full_disk_are_one_sentence(
    drawings: Path, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DataConfig(path=str(drawings), **ON_DISK)  # type: ignore[arg-type]

    def fill_up(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(row_cache, "_write", fill_up)
        with pytest.raises(InputError, match=r"the disk is full after 0 decoded"):
            load_data(data)
    splits = load_data(data)
    [pixels] = caches.glob("*/content.bin")
    os.truncate(pixels, 144 * 80)
    with pytest.raises(InputError, match=r"content\.bin was cut off while it was used: remove .*--resume"):
        compute_fingerprint(splits, None)
    with pytest.raises(InputError, match=r"is damaged: content\.bin holds 80 rows, rows\.bin tells of more"):
        load_data(data)


def test_a_file_that_changes_while_it_is_decoded_in_every_epoch_stops_the_run(
    drawings: Path, caches: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(drawings, tmp_path / "drawings"))
    train_part = load_made(folder, **NOWHERE).train
    Image.new("L", (12, 12), 7).save(folder / str(train_part.ids[3]))
    train_part.inputs[:3]
    with pytest.raises(InputError, match=rf"{train_part.ids[3]} changed while it was trained on; .*--resume"):
        train_part.inputs[2:5]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Texts of ten classes."""
    path = tmp_path / "texts.csv"
    path.write_text("\n".join(["label,text", *(f"{n % 10},text {n} of {n % 10}" for n in range(60))]))
    return path


def test_texts_that_do_not_fit_are_prepared_for_each_batch(texts: Path) -> None:
    kept, computed = (load_made(texts, kind="text", memory_gb=most) for most in (1, 0))
    assert isinstance(kept.train.inputs, np.ndarray)
    assert isinstance(computed.train.inputs, ComputedRows)
    assert_same(kept, computed)
