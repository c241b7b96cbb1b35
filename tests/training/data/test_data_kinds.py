"""The table of data kinds: every value of ``data.kind`` has its class, and every class keeps its word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api_schemas.data_config import DataConfig, DataKind
from common.errors import ConfigError
from tests.voices import write_voices
from training.data.kinds import DATA_KINDS, guess_kind, open_kind
from training.data.load_data import load_data, load_items
from training.models.backbones import BACKBONES, select_backbone


@pytest.fixture
def configs(drawings: Path, tmp_path: Path) -> dict[str, DataConfig]:
    """Small data of each kind."""
    labels, values = np.arange(40) % 10, np.random.default_rng(0).normal(size=(40, 3))
    pq.write_table(
        pa.table({"label": labels, **dict(zip("abc", values.T, strict=True))}), tmp_path / "t.parquet"
    )
    rows = [json.dumps({"text": f"text {row}", "label": int(label)}) for row, label in enumerate(labels)]
    (tmp_path / "t.jsonl").write_text("\n".join(rows))
    np.savez(tmp_path / "v.npz", embeddings=values, labels=labels)
    sections = {
        "images": {"path": str(drawings)},
        "audio": {"path": str(write_voices(tmp_path / "voices", speakers=10, recordings=2, seconds=1.0))},
        "table": {"path": str(tmp_path / "t.parquet")},
        "text": {"path": str(tmp_path / "t.jsonl")},
        "embeddings": {"path": str(tmp_path / "v.npz")},
        "builtin": {"builtin": "digits"},
    }
    return {kind: DataConfig.model_validate({"kind": kind, **section}) for kind, section in sections.items()}


def test_every_value_of_the_configuration_has_its_class() -> None:
    assert tuple(DATA_KINDS) == get_args(DataKind)


@pytest.mark.parametrize("name", DATA_KINDS)
def test_the_placeholder_is_of_the_kind_that_the_data_gives(
    name: str, configs: dict[str, DataConfig]
) -> None:
    data = configs[name]
    splits = load_data(data)
    assert type(open_kind(data).build_placeholder()) is type(splits.preprocessing)
    for items in splits.get_parts().values():
        prepared = splits.preprocessing.normalise(items.inputs[:])
        pieces = (prepared.shape[1],) if splits.preprocessing.has_pieces else ()
        assert prepared.shape == (len(items), *pieces, *splits.preprocessing.shape)
        assert prepared.dtype == np.float32
    if data.paths:
        everything = load_items(data.paths, data, splits.preprocessing)
        assert len(everything) == sum(len(items) for items in splits.get_parts().values())


@pytest.mark.parametrize("name", DATA_KINDS)
def test_a_backbone_that_does_not_take_the_data_names_those_that_do(
    name: str, configs: dict[str, DataConfig]
) -> None:
    placeholder = open_kind(configs[name]).build_placeholder()
    fitting = [backbone for backbone, made in BACKBONES.items() if placeholder.layout in made.layouts]
    assert fitting
    for backbone in BACKBONES:
        if backbone in fitting:
            assert select_backbone(backbone, placeholder) is BACKBONES[backbone]
        else:
            message = (
                rf"'{backbone}' does not take {placeholder.rule.kind} inputs: choose {' or '.join(fitting)}"
            )
            with pytest.raises(ConfigError, match=message):
                select_backbone(backbone, placeholder)


def test_builtin_data_may_be_tested_on_files(drawings: Path) -> None:
    data = DataConfig.model_validate({"builtin": "digits", "test_path": str(drawings)})
    splits = load_data(data)
    assert splits.test is not None
    assert splits.test.inputs.shape == (90, 1, 8, 8)
    assert len(splits.train) > 500


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("t.jsonl", "text"),
        ("v.npz", "embeddings"),
        ("v.npy", "embeddings"),
        ("list.csv", "images"),
        ("x", "images"),
    ],
)
def test_a_lone_file_is_taken_for_the_kind_of_its_suffix(name: str, kind: str) -> None:
    assert guess_kind(Path(name)) == kind
