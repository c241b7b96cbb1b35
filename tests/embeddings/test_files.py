"""Embedding files: written, read back, and refused when damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import InputError
from embeddings.embedding_set import EmbeddingSet
from embeddings.files import open_embeddings, read_embeddings, save_embeddings
from embeddings.hashes import hash_items

VECTORS = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, -2.0]])


def test_files_come_back_as_they_were(tmp_path: Path) -> None:
    items = EmbeddingSet.from_arrays(VECTORS, ["b", "a", "b"], ids=["i", "j", "k"], metadata={"m": [1, 2, 3]})
    save_embeddings(items, tmp_path / "e.npz")
    table = pa.table(
        {"embedding": VECTORS.tolist(), "label": ["b", "a", "b"], "id": ["i", "j", "k"], "m": [1, 2, 3]}
    )
    pq.write_table(table, tmp_path / "e.parquet")
    for name in ("e.npz", "e.parquet"):
        again = read_embeddings(tmp_path / name)
        np.testing.assert_allclose(again.vectors, items.vectors, atol=1e-7)
        assert again.labels.tolist() == items.labels.tolist()
        assert again.ids.tolist() == items.ids.tolist()
        assert again.metadata["m"].tolist() == [1, 2, 3]


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.npz is not a file"):
        read_embeddings(tmp_path / "missing.npz")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match=r"ends in '\.txt'"):
        read_embeddings(tmp_path / "a.txt")
    (tmp_path / "broken.npz").write_bytes(b"PK nonsense")
    with pytest.raises(InputError, match=r"broken\.npz cannot be read"):
        read_embeddings(tmp_path / "broken.npz")
    (tmp_path / "broken.parquet").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"broken\.parquet cannot be read"):
        read_embeddings(tmp_path / "broken.parquet")
    np.savez(tmp_path / "short.npz", embeddings=VECTORS)
    with pytest.raises(InputError, match=r"short\.npz has no array 'labels'; found embeddings"):
        read_embeddings(tmp_path / "short.npz")
    pq.write_table(pa.table({"embedding": [[1.0, 2.0], [1.0]], "label": [1, 2]}), tmp_path / "ragged.parquet")
    with pytest.raises(InputError, match="row 1 has an embedding of 1 numbers"):
        read_embeddings(tmp_path / "ragged.parquet")
    pq.write_table(pa.table({"embedding": [[1.0, 2.0], None], "label": [1, 2]}), tmp_path / "null.parquet")
    with pytest.raises(InputError, match="row 1 has no embedding"):
        read_embeddings(tmp_path / "null.parquet")


def test_an_npz_of_objects_is_refused_unread(tmp_path: Path) -> None:
    np.savez(tmp_path / "o.npz", embeddings=VECTORS, labels=np.array(["a", 1, None], dtype=object))
    with pytest.raises(InputError, match="plain arrays"):
        read_embeddings(tmp_path / "o.npz")


@pytest.mark.parametrize("name", ["file", "args", "allow_pickle", "a.npy"])
def test_metadata_may_be_called_anything_but_as_the_set_itself(tmp_path: Path, name: str) -> None:
    items = EmbeddingSet.from_arrays(VECTORS, ["b", "a", "b"], metadata={name: [1, 2, 3]})
    save_embeddings(items, tmp_path / "e.npz")
    assert read_embeddings(tmp_path / "e.npz").metadata[name].tolist() == [1, 2, 3]
    with np.load(tmp_path / "e.npz", allow_pickle=False) as archive:
        assert set(archive.files) == {"embeddings", "labels", "ids", name}


@pytest.mark.parametrize("name", ["embeddings", "labels", "ids"])
def test_metadata_that_is_called_as_the_set_itself_is_refused(tmp_path: Path, name: str) -> None:
    items = EmbeddingSet.from_arrays(VECTORS, ["b", "a", "b"], metadata={name: [1, 2, 3]})
    with pytest.raises(InputError, match=rf"e\.npz: a metadata column cannot be called '{name}'.*rename it"):
        save_embeddings(items, tmp_path / "e.npz")
    assert not list(tmp_path.iterdir())


def test_a_missing_text_of_a_table_is_missing_in_the_archive(tmp_path: Path) -> None:
    table = pa.table({"embedding": VECTORS.tolist(), "label": ["b", "a", "b"], "camera": ["x", "y", None]})
    pq.write_table(table, tmp_path / "e.parquet")
    save_embeddings(read_embeddings(tmp_path / "e.parquet"), tmp_path / "e.npz")
    assert read_embeddings(tmp_path / "e.npz").metadata["camera"].tolist() == ["x", "y", None]


def test_metadata_of_every_type_comes_back_with_what_is_missing(tmp_path: Path) -> None:
    metadata = {
        "whole": [2**53 + 1, None, -1],
        "unsigned": np.array([2**64 - 1, 0, 1], dtype=np.uint64),
        "real": [0.1, None, -0.0],
        "text": ["", None, "é"],
        "nothing": [None, None, None],
        "yes": [True, None, False],
        "day": np.array(["2024-01-31", "NaT", "0001-01-01"], dtype="M8[D]"),
        "when": np.array(["2024-01-31T12:00:00.000001", "NaT", "9999-12-31T00:00"], dtype="M8[us]"),
        "moment": np.array([1, "NaT", -1], dtype="M8[ns]"),
    }
    items = EmbeddingSet.from_arrays(VECTORS, ["b", "a", "b"], metadata=metadata)
    save_embeddings(items, tmp_path / "e.npz")
    again = read_embeddings(tmp_path / "e.npz")
    assert hash_items(again) == hash_items(items)
    assert again.metadata.keys() == items.metadata.keys() == metadata.keys()
    for name, column in items.metadata.items():
        assert again.metadata[name].dtype == column.dtype, name
        assert again.metadata[name].tolist() == column.tolist(), name
    assert items.metadata["whole"].tolist() == metadata["whole"]
    assert items.metadata["text"].tolist() == metadata["text"]
    with np.load(tmp_path / "e.npz", allow_pickle=False) as archive:
        assert archive["text:missing"].tolist() == [False, True, False]


def test_a_column_that_is_called_as_the_mark_of_missing_values_is_refused(tmp_path: Path) -> None:
    items = EmbeddingSet.from_arrays(VECTORS, ["b", "a", "b"], metadata={"x:missing": [True, False, True]})
    with pytest.raises(InputError, match=r"cannot end in ':missing': rename it"):
        save_embeddings(items, tmp_path / "e.npz")


def test_a_table_with_two_columns_of_labels_is_refused(tmp_path: Path) -> None:
    table = pa.table({"embedding": VECTORS.tolist(), "label": [1, 2, 3], "labels": [4, 5, 6]})
    pq.write_table(table, tmp_path / "e.parquet")
    with pytest.raises(InputError, match=r"e\.parquet has the columns 'label' and 'labels'.*rename one"):
        read_embeddings(tmp_path / "e.parquet")


FUZZED = ["plain.npz", "packed.npz", "by_column.npz", "packed_by_column.npz"]
FUZZED += ["rows.npy", "by_column.npy", "lists.parquet"]


def write_set(folder: Path, kind: str) -> EmbeddingSet:
    """A small set as one kind of file, and as it is read from there."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(60, 5))
    if "by_column" in kind:
        vectors = np.asfortranarray(vectors)
    columns = {"labels": np.arange(60) % 7, "ids": np.array([f"i{n}" for n in range(60)])}
    if kind.endswith("npz"):
        save = np.savez_compressed if kind.startswith("packed") else np.savez
        save(folder / kind, embeddings=vectors, camera=np.arange(60) % 3, **columns)  # type: ignore[arg-type]
    elif kind.endswith("npy"):
        np.save(folder / kind, vectors)
        np.save(folder / "labels.npy", columns["labels"].astype(np.str_))
    else:
        table = {"label": columns["labels"], "id": columns["ids"], "camera": np.arange(60) % 3}
        pq.write_table(
            pa.table({"embedding": vectors.tolist(), **table}), folder / kind, write_page_checksum=True
        )
    return open_set(folder / kind)


def open_set(path: Path) -> EmbeddingSet:
    labels = path.with_name("labels.npy") if path.suffix == ".npy" else None
    return open_embeddings(path, labels).read()


def damage(intact: bytes, random: np.random.Generator) -> bytes:
    """Cut off, with a few bits flipped, or with a few bytes of another file in it."""
    content = bytearray(intact)
    if random.random() < 0.25:
        return bytes(content[: random.integers(len(content))])
    if random.random() < 0.25:  # where the header of an array is
        content[random.integers(min(160, len(content)))] = random.integers(32, 127)
        return bytes(content)
    for position in random.integers(len(content), size=random.integers(1, 4)):
        content[position] ^= 1 << random.integers(8) if random.random() < 0.5 else random.integers(1, 256)
    return bytes(content)


@pytest.mark.parametrize("kind", FUZZED)
@pytest.mark.parametrize("runs", [400, pytest.param(3_000, marks=pytest.mark.full)])
def test_a_damaged_file_is_refused_or_read_as_it_was(tmp_path: Path, kind: str, runs: int) -> None:
    expected, path = write_set(tmp_path, kind), tmp_path / kind
    victims = [path, tmp_path / "labels.npy"] if kind.endswith("npy") else [path]
    intact, random = {victim: victim.read_bytes() for victim in victims}, np.random.default_rng(1)
    said: list[str] = []
    for _ in range(runs):
        victim = victims[random.integers(len(victims))]
        victim.write_bytes(damage(intact[victim], random))
        try:
            loaded = open_set(path)
        except InputError as error:
            said.append(str(error))
        else:
            assert loaded.vectors.shape == expected.vectors.shape
            if not kind.endswith("npy"):  # which has no checksum of what it holds
                np.testing.assert_array_equal(loaded.vectors, expected.vectors)
                assert loaded.labels.tolist() == expected.labels.tolist()
            if kind.endswith("npz"):  # a table's names of columns have none
                assert loaded.ids.tolist() == expected.ids.tolist()
                assert loaded.metadata["camera"].tolist() == expected.metadata["camera"].tolist()
            assert all(isinstance(label, str) for label in loaded.labels.tolist())
        victim.write_bytes(intact[victim])
    assert len(said) > runs // 20
    assert all(str(tmp_path) in sentence and "\n" not in sentence for sentence in said)


@pytest.mark.parametrize("kind", ["plain.npz", "packed.npz", "by_column.npz", "by_column.npy"])
def test_a_shape_that_the_bytes_do_not_fill_is_damage(tmp_path: Path, kind: str) -> None:
    write_set(tmp_path, kind)
    content = (tmp_path / kind).read_bytes()
    if kind == "packed.npz":
        (tmp_path / kind).write_bytes(content[:90] + content[120:])
    else:
        assert b"(60, 5)" in content
        (tmp_path / kind).write_bytes(content.replace(b"(60, 5)", b"(30, 5)", 1))
    with pytest.raises(InputError, match=f"{kind} .*damaged"):
        open_set(tmp_path / kind)


def test_a_list_of_members_that_hides_some_is_damage(tmp_path: Path) -> None:
    write_set(tmp_path, "plain.npz")
    content = bytearray((tmp_path / "plain.npz").read_bytes())
    entries = [start for start in range(len(content)) if content[start:].startswith(b"PK\x01\x02")]
    content[entries[-2] + 32] = len(content) - 22 - entries[-1]  # the last is the comment of the one before
    (tmp_path / "plain.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"is damaged: it counts 4 arrays and lists 3"):
        open_set(tmp_path / "plain.npz")
