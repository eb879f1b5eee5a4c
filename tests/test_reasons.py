"""The page of reasons: every name that decides about a caller is on it, and nothing that is no name."""

from __future__ import annotations

import re
from pathlib import Path

from agent.connections.records import CloseReason
from agent.inbound.inbound import InboundReason
from agent.policy.intentions import VerdictReason

PAGE = Path(__file__).parents[1] / "docs" / "intentions.md"


def test_the_page_has_them_all_and_no_others() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    shown = {name for row in rows for name in re.findall(r"`([a-z0-9_]+)`", row.split("|")[1])}
    known = {reason.value for kind in (CloseReason, InboundReason, VerdictReason) for reason in kind}
    allowing = {reason.value for reason in VerdictReason if reason.value.endswith("_allow")}
    assert shown == known - allowing


def test_who_is_cut_is_told_so() -> None:
    rows = [line.split("|") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    cutting = {name for row in rows if "✓" in row[3] for name in re.findall(r"`([a-z0-9_]+)`", row[1])}
    assert cutting == {reason.value for reason in CloseReason}
