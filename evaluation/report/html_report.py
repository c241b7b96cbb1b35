"""``report.html``: one file that opens anywhere, without a network or a script, in light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from api_schemas.diagnosis import Diagnosis
from api_schemas.operating_point import OperatingPoint
from api_schemas.report import Report
from decision.targets import get_endpoint
from evaluation.report.charts import Chart
from evaluation.report.palette import DARK, LIGHT
from evaluation.report.svg import svg
from evaluation.report.text_table import worst_classes

WORST = 10
STYLE = """
*{box-sizing:border-box}html{background:var(--ground);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI","Noto Sans","DejaVu Sans",sans-serif}
body{margin:0 auto;max-width:1080px;padding:28px 20px;font-variant-numeric:tabular-nums}
h1{font-size:1.7rem;letter-spacing:-.02em;margin:0}h2{font-size:1.1rem;margin:0 0 2px}
p{margin:0}.soft{color:var(--soft);overflow-wrap:anywhere}
section{background:var(--card);border:1px solid var(--line);border-radius:14px;
padding:18px 20px;margin-top:18px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:18px}
.tile strong{display:block;font-size:1.6rem;font-weight:650;letter-spacing:-.02em}
.tile small,.tile span{color:var(--soft);font-size:.86rem}
svg{display:block;width:100%;min-width:540px;height:auto;margin-top:10px}
.all th:nth-child(2),.all td:nth-child(2){text-align:left}
.pairs th:not(:last-child),.pairs td:not(:last-child){text-align:left;overflow-wrap:anywhere}
.tick{fill:var(--soft);font-size:12px}.note{fill:var(--ink);font-size:12px;font-weight:600}
.curve{fill:none;stroke-width:2.4}.mark{stroke-width:1.4;stroke-dasharray:5 4}
.stroke-grid{stroke:var(--grid)}.stroke-accent{stroke:var(--accent)}.stroke-warm{stroke:var(--warm)}
.stroke-cool{stroke:var(--cool)}.stroke-ink{stroke:var(--ink)}.fill-accent-wash{fill:var(--accent-wash)}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;margin-top:8px}
th,td{text-align:right;padding:6px 10px;border-bottom:1px solid var(--line)}
th{color:var(--soft);font-weight:500;font-size:.86rem}th:first-child,td:first-child{text-align:left}
ul{margin:6px 0 0;padding-left:20px}
"""


def page(
    report: Report,
    charts: Sequence[Chart],
    points: Sequence[OperatingPoint] = (),
    diagnosis: Diagnosis | None = None,
) -> str:
    """The whole page as text."""
    figures = [_figure(chart) for chart in charts]
    sections = [
        f'<section class="tiles">{"".join(_tiles(report))}</section>',
        *figures,
        _worst(report),
        _diagnosed(diagnosis),
        _points(points),
        _numbers(report),
        _reasons(report),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Limen report: {escape(report.split)}</title><style>{_palette()}{STYLE}</style></head><body>"
        f"<h1>How evenly one threshold holds</h1>{_head(report)}{''.join(sections)}</body></html>\n"
    )


def _palette() -> str:
    light = "".join(f"--{name}:{value};" for name, value in LIGHT.items())
    dark = "".join(f"--{name}:{value};" for name, value in DARK.items())
    return f":root{{color-scheme:light dark;{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"


def _head(report: Report) -> str:
    counts, score = report.counts, report.score
    kind = score.kind if score.form is None else f"{score.kind} ({score.form})"
    return (
        f'<p class="soft">{counts.items:,} items of {counts.classes:,} classes ({escape(report.split)}), '
        f"{counts.genuine_pairs:,} genuine and {counts.impostor_pairs:,} impostor pairs, score {kind}, "
        f"{report.created_at:%Y-%m-%d %H:%M} UTC, model {report.model_hash[:12]}</p>"
    )


def _tiles(report: Report) -> list[str]:
    found, checked = report.consistency, report.verification
    ends = found.opis_ci
    compute_debiased_opis = "no interval" if ends is None else f"95 % interval {ends[0]:.5f} to {ends[1]:.5f}"
    return [
        _tile("OPIS, debiased", _number(found.opis_debiased), compute_debiased_opis),
        _tile(
            "OPIS, plain",
            _number(found.opis),
            "variance of the classes' utility" if found.noise_floor is None
            else f"of it sampling noise {found.noise_floor:.5f}",
        ),
        _tile("Equal error rate", _percent(checked.eer), "FAR = FRR"),
        _tile("Accepted at FAR 1 %", _percent(checked.tar_at_far.get("0.01")), "of genuine pairs"),
        _tile("Recall@1", _percent(report.retrieval.recall_at_1), "the nearest is of the same class"),
        _tile("MAP@R", _percent(report.retrieval.map_at_r), "how well classes rank together"),
    ]  # fmt: skip


def _tile(name: str, value: str, aside: str) -> str:
    return f'<div class="tile"><span>{name}</span><strong>{value}</strong><small>{aside}</small></div>'


def _figure(chart: Chart) -> str:
    drawn = (
        f'<p class="soft">{escape(chart.empty)}</p>'
        if chart.figure is None
        else f'<div class="scroll">{svg(chart.figure, chart.title)}</div>'
    )
    return (
        f'<section><h2>{escape(chart.title)}</h2><p class="soft">{escape(chart.caption)}</p>{drawn}</section>'
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _worst(report: Report) -> str:
    rows = [
        (label, str(n), _percent(far), _percent(frr), f"{utility:.3f}")
        for label, n, far, frr, utility in worst_classes(report, WORST)
    ]
    if not rows:
        return ""
    return (
        "<section><h2>The worst classes</h2>"
        '<p class="soft">Lowest utility, averaged over the calibration range.</p>'
        f"{_table(('class', 'items', 'FAR', 'FRR', 'utility'), rows)}</section>"
    )


def _diagnosed(diagnosis: Diagnosis | None) -> str:
    if diagnosis is None:
        return ""
    parts = []
    groups = [group for group in diagnosis.groups if group.column != "label"]
    if groups:
        rows = [
            (
                f"{group.column} = {group.value}",
                f"{group.n_items:,}",
                _percent(group.far["0.01"]),
                _percent(group.frr["0.01"]),
                _percent(group.recall_at_1),
            )
            for group in groups
        ]
        head = ("group", "items", "FAR", "FRR", "recall@1")
        parts.append(
            "<section><h2>Groups</h2>"
            '<p class="soft">Pairs within each group at the threshold whose pooled FAR is 1 %.</p>'
            f"{_table(head, rows)}</section>"
        )
    for title, aside, pairs in (
        ("The hardest impostors", "Most alike, of two classes.", diagnosis.hardest_impostor),
        ("The hardest genuine pairs", "Least alike, of one class.", diagnosis.hardest_genuine),
    ):
        rows = [(pair.label_a, pair.a, pair.label_b, pair.b, f"{pair.score:.4f}") for pair in pairs[:WORST]]
        parts.append(
            f'<section class="pairs"><h2>{title}</h2><p class="soft">{aside}</p>'
            f"{_table(('class', 'item', 'class', 'item', 'score'), rows)}</section>"
        )
    return "".join(parts)


def _points(points: Sequence[OperatingPoint]) -> str:
    if not points:
        return ""
    rows = []
    for point in points:
        proof = point.proof or point.fit
        decides_match = get_endpoint(point.target) == "match"
        measured = proof.fpir if decides_match else proof.far
        missed = proof.fnir if decides_match else proof.frr
        target = point.target.kind.upper() + (
            f" {_percent(point.target.value)}" if point.target.value is not None else ""
        )
        rows.append((point.name, target, f"{point.threshold:.4f}", _percent(measured), _percent(missed)))
    head = ("operating point", "target", "threshold", "false acceptance", "false rejection")
    return f"<section><h2>Operating points</h2>{_table(head, rows)}</section>"


def _numbers(report: Report) -> str:
    rows = []
    for name in ("retrieval", "verification", "identification", "consistency", "geometry"):
        part = getattr(report, name)
        if part is None:
            continue
        for key, value in part.model_dump(mode="json").items():
            rows += [(name, label, text) for label, text in _flat(key, value)]
    return (
        f'<section class="all"><h2>All figures</h2>{_table(("section", "figure", "value"), rows)}</section>'
    )


def _flat(key: str, value: object) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [row for name, inner in value.items() for row in _flat(f"{key} {name}", inner)]
    if isinstance(value, list):
        short = len(value) == 2 and all(isinstance(item, int | float) for item in value)
        return [(key, " to ".join(f"{item:.6g}" for item in value))] if short else []
    if value is None:
        return [(key, "not given")]
    return [(key, f"{value:.6g}" if isinstance(value, float) else str(value))]


def _reasons(report: Report) -> str:
    if not report.reasons:
        return ""
    items = "".join(f"<li>{escape(reason)}</li>" for reason in report.reasons)
    return f"<section><h2>Notes</h2><ul>{items}</ul></section>"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.3g} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.5f}"
