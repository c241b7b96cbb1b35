"""``report.html``: one file that opens anywhere, without a network or a script, in light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from api_schemas.diagnosis import Diagnosis
from api_schemas.operating_point import OperatingPoint
from api_schemas.report import Report
from evaluation.report.audit_text import (
    GALLERY_HEAD,
    GROUP_HEAD,
    describe_worst_group,
    format_threshold,
    list_galleries,
    list_groups,
    list_instead,
    list_rates,
)
from evaluation.report.charts import DARK, LIGHT, Chart
from evaluation.report.headline import (
    WORST_HEAD,
    format_number,
    format_percent,
    format_score,
    format_target,
    select_rates,
    select_tiles,
    select_worst_classes,
)
from evaluation.report.svg import draw_svg

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


def render_html(
    report: Report,
    charts: Sequence[Chart],
    points: Sequence[OperatingPoint] = (),
    diagnosis: Diagnosis | None = None,
) -> str:
    """The whole page as text."""
    sections = [
        f'<section class="tiles">{"".join(_render_tiles(report))}</section>',
        *(_render_chart(chart) for chart in charts),
        _render_audit(report),
        _render_worst(report),
        _render_groups(report),
        _render_galleries(report),
        _render_teacher(report),
        _render_diagnosis(diagnosis, shows_groups=not report.groups),
        _render_points(points),
        _render_all_figures(report),
        _render_reasons(report),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Limen report: {escape(report.split)}</title><style>{_render_palette()}{STYLE}</style></head>"
        f"<body><h1>How evenly one threshold holds</h1>{_render_head(report)}{''.join(sections)}"
        "</body></html>\n"
    )


def _render_palette() -> str:
    light = "".join(f"--{name}:{value};" for name, value in LIGHT.items())
    dark = "".join(f"--{name}:{value};" for name, value in DARK.items())
    return f":root{{color-scheme:light dark;{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"


def _render_head(report: Report) -> str:
    counts = report.counts
    return (
        f'<p class="soft">{counts.items:,} items of {counts.classes:,} classes ({escape(report.split)}), '
        f"{counts.genuine_pairs:,} genuine and {counts.impostor_pairs:,} impostor pairs, "
        f"score {format_score(report.score)}, "
        f"{report.created_at:%Y-%m-%d %H:%M} UTC, model {report.model_hash[:12]}</p>"
    )


def _render_tiles(report: Report) -> list[str]:
    return [
        f'<div class="tile"><span>{escape(headline.heading)}</span><strong>{headline.format(report)}</strong>'
        f"<small>{escape(headline.describe(report))}</small></div>"
        for headline in select_tiles(report)
    ]


def _render_section(title: str, caption: str, content: str, style: str = "") -> str:
    opening = f'<section class="{style}">' if style else "<section>"
    soft = f'<p class="soft">{escape(caption)}</p>' if caption else ""
    return f"{opening}<h2>{escape(title)}</h2>{soft}{content}</section>"


def _render_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _render_chart(chart: Chart) -> str:
    if chart.figure is None:
        drawing = f'<p class="soft">{escape(chart.empty)}</p>'
    else:
        drawing = f'<div class="scroll">{draw_svg(chart)}</div>'
    return _render_section(chart.title, chart.caption, drawing)


def _render_worst(report: Report) -> str:
    rows = [row.format() for row in select_worst_classes(report, WORST)]
    if not rows:
        return ""
    return _render_section(
        "The worst classes",
        "Lowest utility, averaged over the calibration range.",
        _render_table(WORST_HEAD, rows),
    )


def _render_audit(report: Report) -> str:
    audit = report.audit
    if audit is None:
        return ""
    rows = [(name, meaning, value) for name, value, meaning in list_rates(audit)]
    table = _render_table(("rate", "of 100 %", f"with {audit.confidence:.0%} interval"), rows)
    sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in list_instead(audit))
    return _render_section(
        f"The threshold {format_threshold(audit)}",
        "What it does on this data, and what would keep 1 %.",
        f"{table}<ul>{sentences}</ul>",
    )


def _render_groups(report: Report) -> str:
    if not report.groups:
        return ""
    sentences = describe_worst_group(report.groups, "match") + describe_worst_group(report.groups, "verify")
    reasons = ((f"{group.column} = {group.value}", group.reason) for group in report.groups)
    sentences += [f"{name}: {reason}" for name, reason in reasons if reason is not None]
    notes = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return _render_section(
        "Does it hold in every group?",
        f"At the threshold {format_number(report.groups[0].threshold)}; intervals resample classes.",
        _render_table(GROUP_HEAD, list_groups(report.groups)) + f"<ul>{notes}</ul>",
    )


def _render_galleries(report: Report) -> str:
    rows = list_galleries(report)
    if not rows:
        return ""
    caption = "False positive identifications of this threshold in galleries of other sizes."
    return _render_section("As the gallery grows", caption, _render_table(GALLERY_HEAD, rows))


def _render_diagnosis(diagnosis: Diagnosis | None, shows_groups: bool) -> str:
    if diagnosis is None:
        return ""
    parts = []
    groups = [group for group in diagnosis.groups if group.column != "label"]
    if groups and shows_groups:
        rows = [
            (
                f"{group.column} = {group.value}",
                f"{group.n_items:,}",
                format_percent(group.far["0.01"]),
                format_percent(group.frr["0.01"]),
                format_percent(group.recall_at_1),
            )
            for group in groups
        ]
        caption = "Pairs within each group at the threshold whose pooled FAR is 1 %."
        table = _render_table(("group", "items", "FAR", "FRR", "recall@1"), rows)
        parts.append(_render_section("Groups", caption, table))
    for title, caption, pairs in (
        ("The hardest impostors", "Most alike, of two classes.", diagnosis.hardest_impostor),
        ("The hardest genuine pairs", "Least alike, of one class.", diagnosis.hardest_genuine),
    ):
        named = [
            (pair.label_a, pair.a, pair.label_b, pair.b, format_number(pair.score)) for pair in pairs[:WORST]
        ]
        table = _render_table(("class", "item", "class", "item", "score"), named)
        parts.append(_render_section(title, caption, table, "pairs"))
    return "".join(parts)


def _render_points(points: Sequence[OperatingPoint]) -> str:
    if not points:
        return ""
    rows = []
    for point in points:
        evidence = point.proof or point.fit
        rates = [format_percent(getattr(evidence, name)) for name in select_rates(point.target)]
        rows.append((point.name, format_target(point.target), format_number(point.threshold), *rates))
    head = ("operating point", "target", "threshold", "false acceptance", "false rejection")
    return _render_section("Operating points", "", _render_table(head, rows))


def _render_all_figures(report: Report) -> str:
    rows = []
    for name in ("retrieval", "verification", "identification", "consistency", "geometry"):
        section = getattr(report, name)
        if section is not None:
            for key, value in section.model_dump(mode="json").items():
                rows += [(name, label, text) for label, text in _flatten(key, value)]
    return _render_section("All figures", "", _render_table(("section", "figure", "value"), rows), "all")


def _flatten(key: str, value: object) -> list[tuple[str, str]]:
    """Name and text of every single number within a figure, of a list the two ends of an interval alone."""
    if isinstance(value, dict):
        return [row for name, inner in value.items() for row in _flatten(f"{key} {name}", inner)]
    if isinstance(value, list):
        short = len(value) == 2 and all(isinstance(item, int | float) for item in value)
        return [(key, " to ".join(f"{item:.6g}" for item in value))] if short else []
    if value is None:
        return [(key, "not given")]
    return [(key, f"{value:.6g}" if isinstance(value, float) else str(value))]


def _render_teacher(report: Report) -> str:
    if not report.beside_teacher:
        return ""
    rows = [(row.name, format_number(row.a), format_number(row.b)) for row in report.beside_teacher]
    caption = "FRR at a FAR of 1 %, FNIR at an FPIR of 1 %, each at its own threshold."
    table = _render_table(("", "teacher", "student"), rows)
    return _render_section("Beside the teacher", caption, table)


def _render_reasons(report: Report) -> str:
    if not report.reasons:
        return ""
    items = "".join(f"<li>{escape(reason)}</li>" for reason in report.reasons)
    return _render_section("Notes", "", f"<ul>{items}</ul>")
