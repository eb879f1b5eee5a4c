"""What carries tunnels is brought in when an upstream or the listener is to have some."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from types import ModuleType

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from agent.outbound.listeners import never
from agent.proxy import tunnelling
from agent.proxy.tunnelling import Tunnelling
from tests.support.agent_parts import AgentBench, agent_bench, registration, settings
from tests.support.warm_upstream import DB
from upstreams.spec import TunnelMode, Upstream


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The modules that were brought in."""
    found: list[str] = []

    def noted(name: str) -> ModuleType:
        found.append(name)
        return import_module(name)

    monkeypatch.setattr(tunnelling, "import_module", noted)
    return found


def made(nursery: trio.Nursery, mode: str) -> tuple[AgentBench, Tunnelling]:
    bench = agent_bench(nursery, settings(tunnel=mode))
    return bench, bench.data._tunnelling


@pytest.mark.parametrize(
    ("mode", "upstream", "wanted"),
    [
        ("never", DB, False),
        ("auto", DB, True),
        ("never", replace(DB, tunnel=TunnelMode.AUTO), True),
        ("auto", replace(DB, tunnel=TunnelMode.NEVER), False),
    ],
)
async def test_an_upstream_brings_in_what_makes_tunnels(
    autojump_clock: MockClock,
    nursery: trio.Nursery,
    loaded: list[str],
    *,
    mode: str,
    upstream: Upstream,
    wanted: bool,
) -> None:
    bench, ours = made(nursery, mode)
    nursery.start_soon(ours.run)
    bench.snapshot.registration.publish(registration())
    await wait_all_tasks_blocked()
    assert (ours.own, ours.at_once) == (None, never)
    bench.snapshot.registration.publish(registration(upstreams=(upstream,)))
    await wait_all_tasks_blocked()
    assert (ours.own is not None, ours.at_once is not never) == (wanted, wanted)
    assert ("agent.outbound.tunnels" in loaded) is wanted


@pytest.mark.parametrize(("mode", "takes"), [("never", False), ("auto", True)])
async def test_the_setting_brings_in_what_serves_the_tunnels_of_callers(
    nursery: trio.Nursery, loaded: list[str], *, mode: str, takes: bool
) -> None:
    _, ours = made(nursery, mode)
    assert loaded == (["agent.inbound.tunnel"] if takes else [])
    assert (ours.serve is not None) is takes
