"""An audit and groups as people read them."""

from __future__ import annotations

from api_schemas.report import Audit, Report
from evaluation.audit.audit_threshold import audit_threshold
from evaluation.audit.decision_figures import measure_fpir_by_gallery
from evaluation.evaluate import evaluate_embeddings
from evaluation.report.audit_text import describe_worst_group, format_decisions
from evaluation.report.charts import build_charts
from evaluation.report.html_report import render_html
from tests.evaluation.report.reports import Tags
from tests.evaluation.samples import make_clusters


def make_report() -> Report:
    """An audit of a distance with two sites, one of which has three classes."""
    items = make_clusters(0, classes=24)
    sites = ["north <1>" if code < 21 else "south" for code in items.codes]
    items = type(items).from_arrays(items.vectors, items.labels, metadata={"site": sites})
    audited = audit_threshold(items, 0.4, "cosine", groups=["site"])
    report = evaluate_embeddings(items, model_hash="m", split="all")
    assert report.identification is not None
    sizes = measure_fpir_by_gallery(audited.measured)
    identification = report.identification.model_copy(update={"fpir_by_gallery": sizes})
    return report.model_copy(
        update={
            "audit": audited.audit,
            "groups": audited.audit.groups,
            "identification": identification,
            "reasons": [*report.reasons, *audited.reasons],
        }
    )


def test_what_the_terminal_says_is_what_was_measured() -> None:
    report = make_report()
    audit = report.audit
    assert isinstance(audit, Audit)
    text = format_decisions(report)
    assert "The threshold: cosine distance <= 0.4 (95% intervals)" in text
    assert audit.far_ci is not None
    assert f"({100 * audit.far_ci[0]:.3g} to {100 * audit.far_ci[1]:.3g} %)" in text
    assert "site = south: 3 classes are too few for intervals" in text
    assert f"\n  {audit.worst[0].label} " in text
    assert "FPIR of this threshold as the gallery grows" in text
    assert (
        format_decisions(report.model_copy(update={"audit": None, "groups": [], "identification": None}))
        == ""
    )


def test_the_page_holds_the_same_and_escapes_names() -> None:
    report = make_report()
    page = render_html(report, build_charts(report, []))
    for title in ("The threshold cosine distance", "Does it hold in every group?", "As the gallery grows"):
        assert title in page
    assert "north &lt;1&gt;" in page
    assert "north <1>" not in page
    assert Tags(page).open == []


def test_the_worst_group_is_named_with_how_much_worse_it_is() -> None:
    group = make_report().groups[0]
    worst = group.model_copy(update={"value": "a", "fpir": 0.08, "fpir_ci": (0.05, 0.12)})
    best = group.model_copy(update={"value": "b", "fpir": 0.02, "fpir_ci": None})
    sentence = describe_worst_group([best, worst], "match")[0]
    assert sentence == (
        "Most false matches by site: a with FPIR 8 % (5 to 12 %), fewest: b with 2 %, 4.0 times as many."
    )
    assert describe_worst_group([best, best], "match") == []
