"""The page asks its own agent alone, by a policy that its browser enforces; every reason has a meaning."""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import pkgutil
import re
import shutil
import subprocess
from enum import StrEnum
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

import agent
import certs
import upstreams
from agent.base.containment import Where
from agent.connections.records import CloseReason
from agent.control.root_catchup import CatchUp
from agent.net.admission import Displaced, Overflow
from agent.observe.server import Reply
from agent.outbound.warm_serve import WarmUse
from agent.page.routes import page_routes, policy
from agent.page.samples import EVERY, Ring, keep
from agent.relay.splice import Ending
from agent.workers.link import WorkerEnd
from agent.workers.reports import WORKER_DIED
from tests.support.agent_parts import AgentBench, agent_bench

FOLDER = Path(agent.__file__).parent / "page"
PAGE = (FOLDER / "page.html").read_text()
MEANINGS: dict[str, str] = json.loads((FOLDER / "reasons.json").read_text())
MORE: tuple[type[StrEnum], ...] = (Ending, WarmUse, WorkerEnd, Displaced, Overflow, Where, CatchUp)


def reasons() -> set[str]:
    """Every member of an enumeration of reasons."""
    known = {one.value for kind in MORE for one in kind} | {WORKER_DIED}
    for package in (agent, certs, upstreams):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name.rpartition(".")[2] == "__main__":
                continue
            for name, kind in vars(importlib.import_module(found.name)).items():
                if (
                    isinstance(kind, type)
                    and issubclass(kind, StrEnum)
                    and name.endswith(("Reason", "Failure", "Warning"))
                ):
                    known |= {str(one.value) for one in kind}
    return known


async def answer(bench: AgentBench, path: str, ring: Ring | None = None) -> Reply:
    (route,) = [one for one in page_routes(bench.agent, ring or Ring()) if one.path == path]
    assert (route.method, route.changes) == ("GET", False)
    return await route.answer(b"")


def test_every_reason_has_a_meaning_and_a_meaning_a_reason() -> None:
    known = reasons() - {"new", "same", "stale", ""}
    assert len(known) > 150
    assert sorted(known - MEANINGS.keys()) == []
    assert {one.value for one in CloseReason} <= known
    assert list(MEANINGS) == sorted(MEANINGS)
    extra = MEANINGS.keys() - known
    assert extra <= {"internal_error", "probe"}


async def test_the_page_is_allowed_its_own_style_and_script_and_no_other(nursery: trio.Nursery) -> None:
    reply = await answer(agent_bench(nursery), "/")
    headers = dict(reply.headers)
    csp = headers["Content-Security-Policy"]
    assert reply.content_type == "text/html; charset=utf-8"
    for kind in ("style", "script"):
        (text,) = re.findall(rf"<{kind}>(.*?)</{kind}>", PAGE, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in csp
    assert "default-src 'none'" in csp
    assert "unsafe" not in csp
    assert headers["X-Frame-Options"] == "DENY"


def test_the_page_has_nothing_that_the_policy_forbids_and_no_address_of_another_host() -> None:
    found = re.findall(r"https?://[^\"'\s)]+", PAGE)
    assert found == ["http://www.w3.org/2000/svg"]  # the name of a namespace, which is not fetched
    assert not re.search(r"\sstyle=|\son\w+=|innerHTML|eval\(", PAGE)
    assert policy(b"<style>a</style>").count("'sha256-") == 1


async def test_the_samples_are_of_the_agent(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    bench, ring = agent_bench(nursery), Ring()
    nursery.start_soon(keep, bench.agent, ring)
    await trio.sleep(2.5 * EVERY)
    read = json.loads((await answer(bench, "/samples", ring)).body)
    assert (read["every_seconds"], read["live"], read["ended"]) == (EVERY, [0.0, 0.0], [0.0, 0.0])
    assert read["now"].endswith("Z")
    assert read["at"][1] - read["at"][0] == EVERY
    nursery.cancel_scope.cancel()


async def test_the_meanings_are_sent_as_they_are(nursery: trio.Nursery) -> None:
    assert json.loads((await answer(agent_bench(nursery), "/reasons")).body) == MEANINGS


CALLS = """
const rows = [{direction: "inbound", peer: "web", upstream: "", opened: true, until: "2026-01-01T00:00:00Z",
               reason: "REASON", rule: "web => db (deny)", admitted_by: "web => db (allow)"}];
const status = {recent: rows, counters: {calls: {"inbound web": {VERDICT: 1}}}};
const samplesAt = 1000, number = new Intl.NumberFormat();
const short = name => name, put = () => {}, make = () => {};
const perSecond = () => ({});
const table = (place, says, columns, shown) =>
  console.log(columns.find(column => column.name === "rule seen last").of(shown[0]));
"""


@pytest.mark.parametrize(
    ("reason", "verdict", "rule"),
    [
        ("narrowed_by_datacenter", "allowed", "web => db (allow)"),
        ("clean", "allowed", "web => db (allow)"),
        ("intention_withdrawn", "intention_withdrawn", "web => db (deny)"),
    ],
)
def test_an_allowed_call_shows_the_rule_that_admitted_it(reason: str, verdict: str, rule: str) -> None:
    if shutil.which("node") is None:
        pytest.skip("node, which runs the page's function, is not installed")
    (function,) = re.findall(r"^function calls\(\) \{.*?^\}$", PAGE, re.DOTALL | re.MULTILINE)
    scene = CALLS.replace("REASON", reason).replace("VERDICT", verdict)
    program = f"{scene}\n{function}\ncalls();"
    told = subprocess.run(["node", "-e", program], capture_output=True, text=True, timeout=30, check=False)
    assert (told.stdout, told.stderr) == (f"{rule}\n", "")
