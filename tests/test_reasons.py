"""The pages of reasons: every name that decides about a caller or a request is on one, and no other name."""

from __future__ import annotations

import re
from pathlib import Path

from agent.base.containment import Where
from agent.base.exits import ExitCode
from agent.connections.records import CloseReason
from agent.consul.errors import ConsulReason
from agent.consul.watch import INTERNAL_ERROR, WatchReason
from agent.h2.faults import FaultReason
from agent.handover.state import StateReason
from agent.http1.head import HeadReason
from agent.http1.request_body import BodyReason
from agent.http1.response_h11 import AnswerReason
from agent.http1.target import TargetReason
from agent.inbound.exposed import ExposedReason
from agent.inbound.http_connection import FrontReason
from agent.inbound.verdict import InboundReason
from agent.net.inherited import SocketReason
from agent.policy.authorize import VerdictReason
from upstreams.travel import TravelReason

SYSTEMD = Path(__file__).parents[1] / "systemd" / "README.md"
DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "intentions.md"
REQUESTS = DOCS / "http.md"
FAILURES = DOCS / "failures.md"


def shown_in(text: str) -> set[str]:
    """The names in the first column of its tables."""
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([a-z0-9_]+)`", row.split("|")[1])}


def test_the_page_has_them_all_and_no_others() -> None:
    shown = shown_in(PAGE.read_text())
    known = {reason.value for kind in (CloseReason, InboundReason, VerdictReason) for reason in kind}
    allowing = {reason.value for reason in VerdictReason if reason.value.endswith("_allow")}
    assert shown == known - allowing


def test_the_page_of_requests_has_them_all_and_no_others() -> None:
    kinds = (HeadReason, TargetReason, BodyReason, AnswerReason, FrontReason)
    table = REQUESTS.read_text().partition("## The names of refusals")[2]
    assert shown_in(table) == {reason.value for kind in kinds for reason in kind}


def test_the_page_of_exposed_paths_has_them_all_and_no_others() -> None:
    table = (DOCS / "exposed-paths.md").read_text().partition("## The names of refusals")[2]
    assert shown_in(table) == {reason.value for reason in ExposedReason}


def test_the_page_of_the_units_has_everything_that_is_wrong_with_a_socket() -> None:
    assert shown_in(SYSTEMD.read_text()) == {reason.value for reason in SocketReason}


def test_the_page_of_failures_has_every_exit_code_with_a_reason() -> None:
    page = FAILURES.read_text().partition("## What ends the process")[2].partition("## Shortages")[0]
    rows = {
        tuple(cell.strip(" `") for cell in row.split("|")[1:3])
        for row in page.splitlines()
        if row[:3] == "| `"
    }
    named = {(code.name.lower(), str(code.value)) for code in ExitCode if code is not ExitCode.CLEAN}
    assert rows - {("reason", "code")} == named


def test_who_is_cut_is_told_so() -> None:
    rows = [line.split("|") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    cutting = {name for row in rows if "✓" in row[3] for name in re.findall(r"`([a-z0-9_]+)`", row[1])}
    assert cutting == {reason.value for reason in CloseReason}


def test_the_page_of_failures_has_every_reason_of_a_watch_and_every_place() -> None:
    page = FAILURES.read_text()
    reasons, places = page.split("## Unforeseen exceptions")
    places = places.partition("## What ends the process")[0]
    known = {reason.value for kind in (ConsulReason, WatchReason) for reason in kind} | {INTERNAL_ERROR}
    assert shown_in(reasons) == known
    assert shown_in(places) == {where.value for where in Where}


def test_the_page_of_failures_has_every_reason_for_which_a_state_is_not_used() -> None:
    table = FAILURES.read_text().partition("## A start without Consul")[2]
    assert shown_in(table) == {reason.value for reason in StateReason}


def test_the_page_of_tunnels_says_of_each_way_to_travel_why() -> None:
    table = (DOCS / "tunnels.md").read_text().partition("## In a tunnel or not")[2].partition("\n## ")[0]
    assert shown_in(table) == {reason.value for reason in TravelReason}


def test_the_page_of_tunnels_has_every_fault_of_a_peer() -> None:
    table = (DOCS / "tunnels.md").read_text().partition("## What is bounded")[2].partition("\n## ")[0]
    assert shown_in(table) == {reason.value for reason in FaultReason}
