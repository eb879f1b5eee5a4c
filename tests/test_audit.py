"""What an audit's report means for CI: a vulnerability fails it; a service that is away is said, no more."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Judge = Callable[[str, str], tuple[int, list[str]]]

FLAW = {"id": "PYSEC-2026-1", "fix_versions": ["1.1"], "aliases": [], "description": "…"}
SOUND = {"name": "h11", "version": "0.16.0", "vulns": []}
FLAWED = {"name": "trio", "version": "1.0", "vulns": [FLAW]}
UNKNOWN = {"name": "trio", "skip_reason": "Dependency not found on PyPI and could not be audited: trio (1.0)"}


@pytest.fixture(scope="module")
def judge() -> Judge:
    found: Judge = runpy.run_path(str(Path(__file__).parents[1] / ".ci" / "audit"))["judge"]
    return found


def report(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


def test_a_known_vulnerability_fails_and_is_named(judge: Judge) -> None:
    code, lines = judge(report(SOUND, FLAWED), "Found 1 known vulnerability in 1 package")
    assert code == 1
    assert lines[0] == "audit: trio 1.0: PYSEC-2026-1, mended in ['1.1']"


def test_sound_packages_pass(judge: Judge) -> None:
    assert judge(report(SOUND, UNKNOWN), "") == (
        0,
        ["audit: 1 packages audited, 1 unknown, 0 vulnerabilities"],
    )


def test_a_service_that_knows_no_package_is_said_to_have_audited_nothing(judge: Judge) -> None:
    code, lines = judge(report(UNKNOWN), "No known vulnerabilities found")
    assert code == 0
    assert lines == ["audit: NOT AUDITED, the advisory service knows none of the 1 packages"]


@pytest.mark.parametrize(
    ("complaint", "why"),
    [("Traceback …\nConnectionError: no route", "ConnectionError: no route"), ("", "no answer in time")],
)
def test_a_service_that_is_away_fails_nothing_and_is_said(judge: Judge, complaint: str, why: str) -> None:
    assert judge("", complaint) == (0, [f"audit: NOT AUDITED, pip-audit got no answer: {why}"])
