"""The pages as HTML: terms explained where they stand, targets in plain words, files with an ETag."""

from __future__ import annotations

import html
import re

import httpx
from markupsafe import escape

from evaluation.report.glossary import TERMS


def test_the_dashboard_says_in_plain_words_what_a_point_keeps(address: str) -> None:
    page = httpx.get(f"{address}/dashboard").text
    assert "Of 1,000 queries of no class in the gallery, at most 200 are matched to one." in page
    assert "Of 1,000 pairs that are not the same, at most 50 are taken to be the same." in page
    assert page.index("at most 200 are matched") < page.index("FPIR 20 %"), "plain words first, terms second"


def test_every_term_of_the_dashboard_is_explained_on_it(address: str) -> None:
    page = httpx.get(f"{address}/dashboard").text
    explanations = {html.unescape(title) for title in re.findall(r'<abbr title="(.*?)">', page)}
    assert len(explanations) > 8
    assert explanations <= set(TERMS.values())
    for term, sentence in TERMS.items():
        assert f"<dt>{escape(term)}</dt><dd>{escape(sentence)}</dd>" in page


def test_the_dashboard_shows_whether_the_threshold_holds_in_every_group(address: str) -> None:
    page = httpx.get(f"{address}/dashboard").text
    table = page[page.index('<table id="groups">') :]
    for place in ("north", "south"):
        assert f'<td class="label">place = {place}</td>' in table
    groups = httpx.get(f"{address}/v1/reports/consistency").json()["groups"]
    assert f"{groups[0]['n_items']:,}</td>" in table
    assert groups[0]["fpir_ci"] is not None
    assert "How sure is an answer?" in page, "the calibration of answers has its chart"


def test_every_page_says_what_it_is(address: str) -> None:
    assert httpx.get(address, follow_redirects=True).text.count("<h1>clusters</h1>") == 1
    docs = httpx.get(f"{address}/docs").text
    assert "Find the most similar items" in docs
    assert "/problems/no-operating-point" in docs
    assert "The <code>k</code> most similar items" in docs


def test_a_static_file_is_sent_once(address: str) -> None:
    first = httpx.get(f"{address}/static/charts.js")
    assert first.headers["content-encoding"] == "gzip"
    again = httpx.get(f"{address}/static/charts.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    plain = httpx.get(f"{address}/static/charts.js", headers={"Accept-Encoding": "identity"})
    assert plain.text == first.text
