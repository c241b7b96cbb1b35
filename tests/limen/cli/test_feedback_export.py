"""``limen feedback export``: judged pairs as the next training reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from api_schemas.data_config import DataConfig
from limen.client import Client
from tests.limen.conftest import run_limen
from tests.service.bundles import ServiceBundle, make_bundle, serve
from tests.service.routers.test_unknowns import ask, make_strangers
from training.data.kinds import open_kind


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ServiceBundle:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "clusters")


def judge_some(client: Client, bundle: ServiceBundle) -> None:
    """A wrong match, a right one, a contradiction, a query that became an item, and one that did not."""
    rows, _ = make_strangers(1, 1, 2)
    texts = [
        {"id": f"t{n}", "label": "t", "vector": rows[0].tolist(), "metadata": {"text": f"Text {n}, so"}}
        for n in range(3)
    ]
    client.upsert(texts)
    client.feedback(a={"id": "t0"}, b={"id": "t1"}, same=True)
    client.feedback(a={"id": "t1"}, b={"id": "t2"}, same=False)  # the service says that they are the same
    client.feedback(a={"id": "t0"}, b={"id": "t1"}, same=True)
    client.feedback(a={"id": "item-0"}, b={"id": "item-1"}, same=True)
    client.feedback(a={"id": "item-1"}, b={"id": "item-2"}, same=True)
    client.feedback(a={"id": "item-0"}, b={"id": "item-2"}, same=False)  # contradicts both
    ask(client, bundle.gallery.vectors[8:10])
    first, second = client.unknowns().unknowns
    client.judge(first.id, same=True)
    client.correct(str(second.label), unknown=second.id)
    client.enroll_unknowns("new", ids=[second.id])


def test_pairs_are_written_from_the_folder_and_from_a_service(bundle: ServiceBundle, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serve(bundle.path, data=data, keep_unknowns="all") as at:
        with Client(at) as client:
            judge_some(client, bundle)
            unknown = client.feedback_page().feedback[0]
        served = run_limen("feedback", "export", "--url", at, "--out", tmp_path / "served.csv")
    stored = run_limen("feedback", "export", "--data", data, "--out", tmp_path / "pairs.parquet")
    assert "5 pairs" in stored.err
    assert "1 judged decisions are left out" in stored.err
    assert "1 pairs are left out" in stored.err
    assert served.err.split("holds")[1] == stored.err.split("holds")[1]
    rows: list[dict[str, Any]] = pq.read_table(tmp_path / "pairs.parquet").to_pylist()
    wrong = [row for row in rows if row["hard"]]
    assert rows[: len(wrong)] == wrong, "wrong decisions come first"
    for row in rows:
        is_correction = row["a_id"] == unknown.item
        assert row["hard"] == (is_correction or (row["decision"] == "match") != row["same"])
    pairs = {frozenset((row["a"], row["b"])): row["same"] for row in rows}
    assert pairs[frozenset(("Text 1, so", "Text 2, so"))] is False
    assert pairs[frozenset(("Text 0, so", "Text 1, so"))] is True
    assert pairs[frozenset((str(unknown.item), str(unknown.b)))] is False
    written = pa_csv.read_csv(tmp_path / "served.csv").to_pylist()
    assert [(row["a"], row["b"], row["same"]) for row in written] == [
        (row["a"], row["b"], row["same"]) for row in rows
    ]
    for file in ("pairs.parquet", "served.csv"):
        config = DataConfig(kind="text", path=str(tmp_path / file))
        items = open_kind(config).read([tmp_path / file])
        labels = dict(zip(items.inputs.tolist(), items.labels.tolist(), strict=True))
        assert labels["Text 0, so"] == labels["Text 1, so"] != labels["Text 2, so"]
    hard = run_limen("feedback", "export", "--data", data, "--only-hard", "--out", tmp_path / "hard.csv")
    assert f"{len(wrong)} pairs, {len(wrong)} of them hard" in hard.err
    assert 2 <= len(wrong) < 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out", "x.csv"], "Give --data FOLDER, or --url"),
        (["--data", ".", "--out", "x.txt"], "must end in .parquet or .csv"),
        (["--data", ".", "--out", "x.csv"], "is not a data folder"),
    ],
)
def test_what_is_missing_is_said(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_limen("feedback", "export", *arguments)
    assert done.code == 2
    assert words in done.err
