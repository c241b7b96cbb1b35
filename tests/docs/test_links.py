"""Targets of the pages: links, headings, files, classes, and the sections of the specification exist."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
FOLDERS = "|".join(path.name for path in ROOT.iterdir() if path.is_dir() and path.name.isidentifier())
SECTIONS = """Words, Scores, Accept rule, Pairs, FAR and FRR, FPIR and FNIR, Retrieval, OPIS, Log-FAR OPIS,
Debiased OPIS, Intervals, Operating point, Calibration, Bundle, Report, Run folder, HTTP, Filters, Settings,
Promises"""
PRIVATE = re.compile(r"\bthe contract\b|\bcontract, section|\bcontract's\b|\bmethods 1\.7\b", re.IGNORECASE)
CITATION = re.compile(r"docs/specification\.md[`'\"]*(?:#([\w-]+)|, (?:section )?([A-Z][\w -]*))")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def read_prose(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


@cache
def read_headings(page: Path) -> list[str]:
    """The headings of a page, in their order."""
    return re.findall(r"^#+ +(.+?) *$", read_prose(page), re.MULTILINE)


def make_anchor(heading: str) -> str:
    """The name under which a heading can be linked to, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def list_links(page: Path) -> list[tuple[Path, str]]:
    """File and anchor of every link of a page that stays in the repository."""
    targets = re.findall(r"\]\(([^)\s]+)\)", read_prose(page))
    split = [target.partition("#") for target in targets if not re.match(r"[a-z]+:", target)]
    return [((page.parent / name).resolve() if name else page, anchor) for name, _, anchor in split]


@cache
def read_sources() -> dict[Path, str]:
    """Every text of the repository that people or programs read, but for this test."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    kinds = {".py", ".md", ".html", ".js", ".json", ".toml", ".yaml"}
    paths = [ROOT / name for name in listed.stdout.splitlines() if Path(name).suffix in kinds]
    return {path: path.read_text() for path in paths if path.is_file() and path != Path(__file__).resolve()}


@each_page
def test_links_lead_to_a_file_and_a_heading(page: Path) -> None:
    for file, anchor in list_links(page):
        assert file.exists(), f"there is no {file}"
        if anchor:
            assert anchor in map(make_anchor, read_headings(file)), f"{file.name} has no heading #{anchor}"


@each_page
def test_pictures_exist(page: Path) -> None:
    for target in re.findall(r"src(?:set)?=\"([^\"]+)\"", page.read_text()):
        assert (page.parent / target).is_file(), target


@each_page
def test_paths_in_the_text_exist(page: Path) -> None:
    for quoted in re.findall(r"`([^`\n]+)`", read_prose(page)):
        for path in re.findall(rf"(?:^|(?<=[\s(]))((?:{FOLDERS})/[\w./*-]*)(?=$|[\s),])", quoted):
            placeholder = any(part.isalpha() and part.isupper() for part in path.split("/"))
            assert placeholder or any(ROOT.glob(path.rstrip("/"))), path


@each_page
def test_classes_in_the_text_exist(page: Path) -> None:
    for module, name in re.findall(rf"`((?:{FOLDERS})(?:\.[a-z_]+)+)\.([A-Z]\w+)", page.read_text()):
        folder = ROOT.joinpath(*module.split("."))
        file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
        assert re.search(rf"\b{name}\b", file.read_text()), f"{module}.{name}"


def test_modules_that_the_changelog_sends_readers_to_exist() -> None:
    rows = re.findall(r"^  \| (`.+`) \| (`.+?) \|$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    modules = [name for _, now in rows for name in re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)`", now)]
    assert len(modules) > 20
    for module in modules:
        path = ROOT.joinpath(*module.split("."))
        assert path.is_dir() or path.with_suffix(".py").is_file(), module


def test_every_page_can_be_reached() -> None:
    reached = {file for page in PAGES for file, _ in list_links(page)}
    assert {page.name for page in PAGES if page not in reached} <= {"README.md"}


def test_the_specification_has_its_sections() -> None:
    expected = re.split(r",\s+", SECTIONS)
    assert [
        heading for heading in read_headings(DOCS / "specification.md") if heading in expected
    ] == expected


def test_citations_of_the_specification_name_its_sections() -> None:
    known = read_headings(DOCS / "specification.md")
    anchors = [make_anchor(heading) for heading in known]
    cited = 0
    for path, text in read_sources().items():
        for anchor, section in CITATION.findall(re.sub(r"\s*\n\s*(?:# )?", " ", text)):
            cited += 1
            exists = anchor in anchors if anchor else any(section.startswith(heading) for heading in known)
            assert exists, f"{path.relative_to(ROOT)} cites '{anchor or section}'"
    assert cited > 5


def test_nothing_cites_what_readers_cannot_open() -> None:
    citations = {str(path.relative_to(ROOT)): PRIVATE.findall(text) for path, text in read_sources().items()}
    assert {path: words for path, words in citations.items() if words} == {}


def test_the_glossary_explains_each_term_once_in_one_sentence() -> None:
    rows = re.findall(r"^\| (?!term|---)(.+?) \| (.+?) \|$", (DOCS / "glossary.md").read_text(), re.MULTILINE)
    terms = [term for term, _ in rows]
    assert len(terms) == len(set(terms)) > 60
    assert [sentence for _, sentence in rows if sentence[-1] not in ".?"] == []
