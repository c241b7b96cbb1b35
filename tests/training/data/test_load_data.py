"""From the data section to prepared parts: separate test sets, ids and reserved columns."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from api_schemas.data_config import DataConfig
from api_schemas.preprocessing import ImageInput
from common.errors import InputError
from encoder.inputs.image_input import ImagePreprocessing
from tests.training.runs import load_made, make_data
from training.data.load_data import load_data, load_items

GREY = ImageInput(mode="L", height=12, width=12, mean=[1.0], std=[1.0])


def test_a_separate_test_set_that_shares_classes_is_said(drawings: Path) -> None:
    messages: list[str] = []
    splits = load_data(make_data(drawings, test_path=str(drawings)), say=messages.append)
    assert splits.test is not None
    assert len(splits.test) == 90
    assert any("are also trained on" in sentence for sentence in messages)


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
    message = rf"list\.csv: images 4 and 90 are both called '{names[4]}': name each image once"
    with pytest.raises(InputError, match=message):
        load_made(tmp_path / "list.csv")
    with pytest.raises(InputError, match=message):
        load_items([tmp_path / "list.csv"], make_data(drawings), ImagePreprocessing(GREY))
    (tmp_path / "other" / "drawings").mkdir(parents=True)
    same = [tmp_path / "other" / drawings.name, drawings]
    shutil.copytree(drawings, same[0])
    with pytest.raises(InputError, match=r"images 0 and 90 are both called .* different names"):
        load_data(DataConfig(path=[str(path) for path in same]))


def test_an_item_may_be_in_two_parts(drawings: Path) -> None:
    splits = load_made(drawings, test_path=str(drawings))
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
        load_made(tmp_path / "list.csv")
    (tmp_path / "list.csv").write_text("\n".join(["path,label,file", *lines]))
    assert load_made(tmp_path / "list.csv").train.metadata["file"][0] == "x"


@pytest.mark.parametrize("kind", ["table", "text", "embeddings"])
def test_an_id_that_comes_twice_is_refused_with_its_rows(tmp_path: Path, kind: str) -> None:
    ids = [f"a{n}" for n in range(40)]
    ids[38] = "a8"  # of the same class, so of the same part
    value = {"table": "", "text": "text ", "embeddings": ""}[kind]
    rows = [f"{item_id},{n % 10},{value}{n}" for n, item_id in enumerate(ids)]
    name = "t.csv"
    if kind == "embeddings":
        name = "x.npy"
        np.save(tmp_path / name, np.random.default_rng(0).normal(size=(40, 3)))
    lines = "\n".join(["id,label,text", *rows])
    (tmp_path / ("x.labels.csv" if kind == "embeddings" else name)).write_text(lines)
    with pytest.raises(InputError, match=rf"{name}: rows 8 and 38 of column 'id' are both 'a8'"):
        load_made(tmp_path / name, kind=kind)
