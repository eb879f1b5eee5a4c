"""The page of security names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_every_test_named_is_there() -> None:
    rows = NAMED.findall((ROOT / "docs" / "security.md").read_text())
    assert len(rows) >= 20
    missing = [f"{path}::{name}" for path, name in rows if f"def {name}(" not in (ROOT / path).read_text()]
    assert missing == []
