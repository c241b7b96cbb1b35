"""What losses know of the training classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from api_schemas.config import Config
from common.errors import InputError
from tests.training.runs import make_data
from training.data.items import Items
from training.data.load_data import load_data
from training.loop.train import train
from training.losses.hierarchical_contrastive import HierarchicalContrastive
from training.objective.objective import Objective
from training.objective.training_classes import describe_classes
from training.run_folder.layout import METRICS_FILE


def build_items(labels: list[str], **columns: list[str]) -> Items:
    n = len(labels)
    metadata = {name: np.array(values) for name, values in columns.items()}
    return Items(np.zeros((n, 2)), np.array(labels), np.arange(n).astype(np.str_), metadata)


def test_sizes_are_those_of_the_training_set_in_the_order_of_the_codes() -> None:
    classes = describe_classes(build_items(["b", "a", "b", "c", "b"]), make_data(Path("x")))
    assert classes.names == ("a", "b", "c")
    assert classes.sizes == (1, 3, 1)
    forms = describe_classes(build_items(["b", "a", "b"]), make_data(Path("x")), forms=2)
    assert forms.names == ("a", "a (form 1)", "b", "b (form 1)")
    assert forms.sizes == (1, 1, 2, 2)


def test_folders_are_levels_and_each_form_has_its_own_tree() -> None:
    items = build_items(["Latin/small/a", "Greek/small/a", "Latin/large/A", "Latin/small/b"])
    classes = describe_classes(items, make_data(Path("x"), hierarchy="path"))
    assert classes.names == ("Greek/small/a", "Latin/large/A", "Latin/small/a", "Latin/small/b")
    assert classes.paths == ((0, 0), (1, 1), (1, 2), (1, 2))
    mirrored = describe_classes(items, make_data(Path("x"), hierarchy="path"), forms=2)
    assert mirrored.paths[:3] == ((0, 0), (1, 1), (2, 2))


def test_columns_are_levels_from_the_broadest_down() -> None:
    items = build_items(
        ["cat", "oak", "cat", "dog"], kingdom=["a", "p", "a", "a"], order=["c", "f", "c", "c"]
    )
    classes = describe_classes(items, make_data(Path("x"), hierarchy=["kingdom", "order"]))
    assert classes.names == ("cat", "dog", "oak")
    assert classes.paths == ((0, 0), (0, 0), (1, 1))


@pytest.mark.parametrize(
    ("labels", "columns", "hierarchy", "message"),
    [
        (["a/b", "c"], {}, "path", "needs class folders of one depth, found 'c' and 'a/b'"),
        (["a", "c"], {}, "path", "takes the folders above the classes' own, and 'a' has none"),
        (["a", "a"], {"kind": ["x", "y"]}, ["kind"], "class 'a' has 'x' and 'y' in column 'kind'"),
        (["a", "b"], {"kind": ["x", " "]}, ["kind"], "item '1' has no value in column 'kind'"),
        (["a", "b"], {"kind": ["x", "y"]}, ["order"], "no column 'order'; found kind"),
    ],
)
def test_classes_without_one_path_each_are_refused(
    labels: list[str], columns: dict[str, list[str]], hierarchy: str | list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        describe_classes(build_items(labels, **columns), make_data(Path("x"), hierarchy=hierarchy))


def test_a_table_s_hierarchy_is_no_feature_and_reaches_the_loss(tmp_path: Path) -> None:
    lines = ["label,kingdom,x,y", *(f"c{n % 6},{'ap'[n % 2]},{n % 6},{n % 5}" for n in range(60))]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    config = Config.model_validate(
        {
            "data": {
                "kind": "table",
                "path": str(tmp_path / "table.csv"),
                "hierarchy": ["kingdom"],
                "split": {"validation": 0, "test": 0},
            },
            "loss": "hierarchical_contrastive",
            "sampler": {"batch_size": 16},
            "schedule": {"epochs": 1, "steps_per_epoch": 2},
        }
    )
    run = train(config, tmp_path / "run")
    assert run.load_preprocessing().shape == (2,)
    splits = load_data(config.data)
    loss = Objective(config, describe_classes(splits.train, config.data)).loss.losses[0]
    assert isinstance(loss, HierarchicalContrastive)
    assert loss.paths.tolist() == [[0, 0], [1, 1], [0, 2], [1, 3], [0, 4], [1, 5]]


@pytest.fixture(scope="module")
def long_tail(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embeddings file of 14 classes of 60 items down to 2."""
    random = np.random.default_rng(0)
    sizes = np.geomspace(60, 2, 14).round().astype(int)
    labels = np.repeat(np.arange(14), sizes)
    path = tmp_path_factory.mktemp("tail") / "tail.npz"
    np.savez(path, embeddings=random.normal(size=(len(labels), 6)).astype(np.float32), labels=labels)
    return path


def test_a_run_says_which_classes_sbcl_cuts(long_tail: Path, tmp_path: Path) -> None:
    config = Config.model_validate(
        {
            "data": {"kind": "embeddings", "path": str(long_tail), "split": {"validation": 0, "test": 0}},
            "model": {"embedding_dim": 4},
            "loss": {"name": "sbcl", "every": 8},
            "sampler": {"batch_size": 32},
            "schedule": {"epochs": 2, "steps_per_epoch": 20, "patience": None},
        }
    )
    said: list[str] = []
    train(config, tmp_path / "run", say=said.append)
    assert any(line.startswith("sbcl cuts 5 of 14 classes into subclasses") for line in said)
    lines = [json.loads(line) for line in (tmp_path / "run" / METRICS_FILE).read_text().splitlines()]
    assert lines[-1]["sbcl_cut_classes"] == 5
    assert lines[-1]["sbcl_subclasses"] > 14
