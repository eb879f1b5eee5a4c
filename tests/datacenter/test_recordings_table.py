"""The table in tests/recordings/README.md names every recording, and what it says of each is true."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from tests.datacenter.replay import RECORDINGS, Case

MADE = 336  # recordings in all; a row that got lost would otherwise not be missed
ROW = re.compile(r"^\| `([a-z0-9-]+)` \| ([a-z_]*) ?\| ?(.*?) ?\|$", re.MULTILINE)


def rows() -> dict[str, tuple[str, str]]:
    """Recording -> (file that holds the datacenter to it, reason if none does)."""
    found = ROW.findall((RECORDINGS / "README.md").read_text(encoding="utf-8"))
    assert len(found) == len({name for name, _, _ in found}), "a recording has two rows"
    return {name: (holder, reason) for name, holder, reason in found}


def cases() -> dict[str, set[str]]:
    """Case file -> the recordings it holds the datacenter to."""
    held = {}
    for path in sorted(Path(__file__).parent.glob("test_recorded_*.py")):
        module = importlib.import_module(f"tests.datacenter.{path.stem}")
        listed: list[Case] = module.CASES
        held[path.stem] = {case.recording for case in listed}
        assert len(listed) == len(held[path.stem]), f"{path.stem} has a recording twice"
    return held


def test_every_recording_has_a_row() -> None:
    assert len(rows()) == MADE
    assert {path.stem for path in RECORDINGS.glob("*.http")} <= rows().keys()


def test_every_row_is_held_or_says_why_not() -> None:
    unsure = [name for name, (holder, reason) in rows().items() if bool(holder) == bool(reason)]
    assert unsure == []


def test_held_rows_and_cases_are_the_same() -> None:
    by_row: dict[str, set[str]] = {}
    for name, (holder, _) in rows().items():
        if holder:
            by_row.setdefault(holder, set()).add(name)
    assert by_row == cases()


def test_a_held_recording_is_here() -> None:
    missing = [
        name for name, (holder, _) in rows().items() if holder and not (RECORDINGS / f"{name}.http").exists()
    ]
    assert missing == []
