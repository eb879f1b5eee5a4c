"""What a comment or a page cites in this repository is there: the file, and the heading it names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.rooms import AGENT_ROOMS

ROOT = Path(__file__).parents[1]
FOLDERS = ("agent", "certs", "upstreams", "datacenter", "tests", "systemd", "docs", "changes")
LINK = re.compile(r"\]\(([^)\s]+)\)")
CITED = re.compile(r"(docs/[\w/-]+\.md)((?:(?:,| and)?\s*#[\w-]+)*)")  # with one anchor or several
ELSEWHERE = re.compile(r"(?i)\b(contract|design|exemplars),? §")  # documents that are in no repository
FILE = re.compile(
    r"\b(?:agent|certs|upstreams|datacenter|tests|systemd|docs)/[\w/-]+\.(?:py|cnf|toml|md|lua)\b"
)


def files(suffix: str) -> Iterator[Path]:
    """The files of the project with that suffix, the recordings' left out."""
    yield from ROOT.glob(f"*{suffix}")
    for folder in FOLDERS:
        yield from (ROOT / folder).rglob(f"*{suffix}")


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


def missing(target: str, base: Path) -> bool:
    """Whether a file, or the heading behind its #, is not there."""
    name, _, anchor = target.partition("#")
    page = base / name if name else base
    return not page.exists() or (bool(anchor) and anchor not in anchors(page))


def test_every_link_of_a_page_leads_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in files(".md")
        for target in LINK.findall(page.read_text())
        if "://" not in target
        if missing(target, page if target.startswith("#") else page.parent)
    ]
    assert broken == []


def test_the_rooms_that_contributing_lists_are_those_of_the_table() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.MULTILINE)
    assert listed == list(AGENT_ROOMS)


def test_every_file_that_a_page_or_a_comment_names_is_there() -> None:
    broken = [
        f"{source.relative_to(ROOT)}: {name}"
        for source in (*files(".md"), *files(".py"))
        for name in FILE.findall(source.read_text())
        if not any(
            (base / name).exists() for base in (ROOT, ROOT / "tests")
        )  # tables of tests leave `tests/` out
    ]
    assert broken == []


def test_every_page_that_a_comment_cites_is_there_with_its_heading() -> None:
    broken = [
        f"{source.relative_to(ROOT)}: {target}"
        for source in files(".py")
        for page, behind in CITED.findall(source.read_text())
        for target in [page + anchor for anchor in re.findall(r"#[\w-]+", behind)] or [page]
        if missing(target, ROOT)
    ]
    assert broken == []


def test_nothing_is_cited_that_a_reader_cannot_open() -> None:
    found = [
        f"{source.relative_to(ROOT)}: {line.strip()}"
        for source in files(".py")
        if source != Path(__file__)
        for line in source.read_text().splitlines()
        if ELSEWHERE.search(line)
    ]
    assert found == []
