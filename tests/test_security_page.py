"""The page of security names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_every_test_named_is_there() -> None:
    rows = NAMED.findall((ROOT / "docs" / "security.md").read_text())
    assert len(rows) >= 38
    missing = [f"{path}::{name}" for path, name in rows if f"def {name}(" not in (ROOT / path).read_text()]
    assert missing == []


def test_what_is_not_defended_and_how_to_report_are_said_and_the_readme_leads_there() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    assert "## What is not defended" in page
    assert "(../SECURITY.md)" in page.partition("## How to report a hole")[2]
    assert "(docs/security.md)" in (ROOT / "README.md").read_text()
