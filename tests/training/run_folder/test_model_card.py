"""The model card says what was trained, measured and not measured."""

from __future__ import annotations

from pathlib import Path

from evaluation.evaluate import evaluate_embeddings
from evaluation.report.headline import HEADLINES, format_percent
from tests.training.runs import MakeConfig
from training.loop.train import train
from training.run_folder.model_card import build_model_card


def test_the_card_holds_data_figures_worst_classes_and_configuration(
    small: MakeConfig, tmp_path: Path, drawings: Path
) -> None:
    loss = ["triplet", {"name": "circle", "weight": {"start": 0.0, "end": 0.5}}]
    run = train(small(name="letters", loss=loss), tmp_path / "run")
    test = run.load_embeddings("test")
    assert test is not None
    report = evaluate_embeddings(test, model_hash="m", split="test")
    card = build_model_card(run, report, [])
    assert card.startswith("# letters\n")
    for part in ("## Data", "## Figures", "## Operating points", "## Worst classes", "## Intended use"):
        assert part in card
    assert str(drawings) in card
    assert "- test: 18 items of 3 classes" in card
    assert f"| recall@1 | {format_percent(report.retrieval.recall_at_1)} |" in card
    for headline in HEADLINES:
        assert f"| {headline.title} | {headline.format(report)} |" in card
    scored = sorted(report.consistency.per_class, key=lambda row: row.utility or 0.0)
    worst = card.split("## Worst classes")[1].split("## Intended use")[0]
    assert [line.split(" | ")[0] for line in worst.splitlines() if line.startswith("| alpha")] == [
        f"| {row.label}" for row in scored
    ]
    assert "None: the data could not support one" in card
    assert "- loss 1 x triplet + (0 to 0.5) x circle;" in card
    assert "backbone: conv4" in card
