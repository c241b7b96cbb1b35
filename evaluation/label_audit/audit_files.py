"""An audit as a CSV file, as a page that opens anywhere, and as text."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Callable, Iterable
from html import escape

from api_schemas.label_audit import FindingKind, LabelAudit, LabelFinding
from common.csv_cells import escape_formula

COLUMNS = tuple(LabelFinding.model_fields)
MOST_ROWS = 500
TITLES: dict[FindingKind, str] = {
    "other_label_nearer": "nearer to another label",
    "copy_of_other_label": "copy under another label",
    "near_copy_of_other_label": "near copy under another label",
    "outlier": "near to nothing",
}
Picture = Callable[[str], bytes | None]
"""The WebP of an item by id, or None."""


def write_csv(findings: Iterable[LabelFinding]) -> str:
    """The findings, a line each; what a spreadsheet would take for a formula begins with an apostrophe."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for finding in findings:
        values = finding.model_dump() | {"kinds": " ".join(finding.kinds)}
        writer.writerow([_write_cell(values[column]) for column in COLUMNS])
    return buffer.getvalue()


def _write_cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return escape_formula(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def summarize(audit: LabelAudit) -> list[str]:
    """Sentences about the whole."""
    counts = ", ".join(f"{n} {TITLES[kind]}" for kind, n in audit.counts.items() if n) or "none"
    sentences = [
        f"{audit.items} items of {audit.labels} labels. To look at: {counts}.",
        f"Pairs are accepted from {audit.threshold:.4g}: {audit.threshold_from}.",
    ]
    if audit.spellings:
        some = "; ".join(" = ".join(f"'{label}'" for label in group) for group in audit.spellings[:5])
        more = f" and {len(audit.spellings) - 5} more" if len(audit.spellings) > 5 else ""
        sentences.append(f"Labels that differ in spelling alone: {some}{more}.")
    if audit.unknown_labels:
        sentences.append(f"Labels that look like the lack of one: {', '.join(audit.unknown_labels[:10])}.")
    if audit.left_out:
        sentences.append(f"{audit.left_out} further findings are left out of the list.")
    return sentences


def render_html(audit: LabelAudit, picture: Picture = lambda item_id: None) -> str:
    """The first findings with their pictures, in one file without a script or anything from elsewhere."""
    rows = "".join(_render_row(finding, picture) for finding in audit.findings[:MOST_ROWS])
    shown = min(MOST_ROWS, len(audit.findings))
    sentences = "".join(f"<p>{escape(sentence)}</p>" for sentence in summarize(audit))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><title>Label audit</title>'
        f"<style>{_STYLE}</style></head><body><h1>Labels to look at</h1>{sentences}"
        f"<p class=soft>The first {shown}, most suspicious first. A list to look at, not a verdict: an item "
        "that is labelled rightly but unusual stands in it, too.</p>"
        "<table><thead><tr><th>#<th>Item<th>Nearest of another label<th>Why</tr></thead>"
        f"<tbody>{rows}</tbody></table></body></html>\n"
    )


def _render_row(finding: LabelFinding, picture: Picture) -> str:
    other = "<td></td>"
    if finding.nearest_id is not None:
        other = _render_item(finding.nearest_id, finding.nearest_label or "", picture)
    return (
        f"<tr><td class=rank>{finding.rank}</td>{_render_item(finding.id, finding.label, picture)}{other}"
        f"<td dir=auto>{escape(finding.reason)}</td></tr>"
    )


def _render_item(item_id: str, label: str, picture: Picture) -> str:
    content = picture(item_id)
    image = ""
    if content is not None:
        data = base64.b64encode(content).decode()
        image = f'<img alt="" src="data:image/webp;base64,{data}">'
    return f"<td>{image}<b dir=auto>{escape(label)}</b><small dir=auto>{escape(item_id)}</small></td>"


_STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.7rem;margin:0 0 .5rem}p{margin:.25rem 0}.soft,small{opacity:.7}
table{border-collapse:collapse;width:100%;margin-top:1rem}td,th{text-align:left;vertical-align:top;
padding:8px 10px;border-bottom:1px solid color-mix(in srgb,currentColor 18%,transparent);
overflow-wrap:anywhere}
img{display:block;max-width:96px;max-height:96px;border-radius:6px;background:#fff}b,small{display:block}
.rank{font-variant-numeric:tabular-nums;opacity:.7}
"""
