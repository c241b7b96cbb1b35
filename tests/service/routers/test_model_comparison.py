"""``/v1/models/{version}/compare``: two loaded models on the items that both hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from limen.client import Client, ServiceError
from tests.service.bundles import make_bundle, serve


def test_a_loaded_model_is_compared_with_the_active_one(tmp_path: Path) -> None:
    folder = tmp_path / "side-by-side"
    one, two = make_bundle(folder / "one"), make_bundle(folder / "two", model="others")
    with serve(one.path, bundles=folder, data=tmp_path / "data") as at, Client(at) as client:
        with pytest.raises(ServiceError, match="not loaded"):
            client.compare_model("two")
        client.wait(client.load_model("two"))
        with pytest.raises(ServiceError, match="was not compared"):
            client.comparison("two")
        with pytest.raises(ServiceError, match="is the active model"):
            client.compare_model("one")
        # an item that one of them alone holds is left out
        client.upsert([{"id": "of-one", "label": "x", "vector": one.get_vector(0)}])
        assert client.wait(client.compare_model("two")).status == "done"
        comparison = client.comparison("two")
        assert (comparison.n_items, comparison.n_classes) == (len(two.gallery), len(two.gallery.classes))
        by_name = {row.name: row for row in comparison.differences}
        assert by_name["recall_at_1"].difference == 0, "the same vectors under another name"
        assert comparison.flips.threshold_a == one.points["verify"].threshold
        assert comparison.flips.genuine_lost == comparison.flips.impostor_lost == 0


def test_versions_have_the_figures_of_their_reports(tmp_path: Path) -> None:
    folder = tmp_path / "side-by-side"
    one = make_bundle(folder / "one")
    make_bundle(folder / "two", model="others")
    (folder / "two" / "report.json").write_text("{}")
    with serve(one.path, bundles=folder) as at, Client(at) as client:
        first, second = client.models().models
        report = client.consistency()
        assert first.figures is not None
        assert first.figures.recall_at_1 == report.retrieval.recall_at_1
        assert first.figures.opis == report.consistency.opis_debiased
        assert first.figures.eer == report.verification.eer
        assert second.figures is None, "a report that cannot be read keeps no other from being listed"
        entry = client.history().entries[0]
        assert (entry.recall_at_1, entry.eer, entry.fnir) == (
            first.figures.recall_at_1,
            first.figures.eer,
            first.figures.fnir,
        )
