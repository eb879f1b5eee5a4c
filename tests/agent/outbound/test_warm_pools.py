"""Which upstreams have a pool: as the registration says, and none once the agent drains."""

from __future__ import annotations

import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from OpenSSL import SSL
from trio.testing import MockClock, wait_all_tasks_blocked

from agent.base.exits import ExitCode
from agent.base.incremental import Incremental
from agent.net.handshake import server_handshake
from agent.outbound.upstream_state import UpstreamState
from agent.outbound.warm_pool import WarmPool
from agent.proxy import upstream_report as upstream_status
from tests.support.agent_in_process import life, wall
from tests.support.agent_parts import PROXY, SERVICE, AgentBench, agent_bench, proxy_answer
from tests.support.socket_pairs import contexts_of, listener
from tests.support.upstream_doubles import Lookups, Told, surroundings
from tests.support.warm_upstream import DB


def targets(warm: int) -> UpstreamState:
    return UpstreamState(replace(DB, warm=warm), surroundings(Lookups(), Told()))


class Bench:
    """The upstreams in force, and the pools that run."""

    def __init__(self, agent: AgentBench) -> None:
        self.agent = agent
        self.in_force = agent.data.reconciler.upstreams.in_force
        self.running: list[UpstreamState] = []

    async def now(self, *current: UpstreamState) -> list[UpstreamState]:
        self.in_force.publish(current)
        await wait_all_tasks_blocked()
        return self.running


async def test_those_that_want_one_have_one(
    autojump_clock: MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(agent_bench(nursery))

    async def run(pool: WarmPool) -> None:
        bench.running.append(pool._targets)
        try:
            await trio.sleep_forever()
        finally:
            bench.running.remove(pool._targets)

    monkeypatch.setattr(WarmPool, "run", run)
    cold, one, two = targets(0), targets(2), targets(3)
    async with trio.open_nursery() as inner:
        inner.start_soon(bench.agent.data.keep_warm)
        assert await bench.now(cold) == []
        assert await bench.now(cold, one) == [one]
        assert set(await bench.now(cold, one, two)) == {one, two}
        one.become(replace(DB, warm=0))
        assert await bench.now(cold, one, two) == [two]
        one.become(DB)
        assert set(await bench.now(one, two)) == {one, two}
        assert await bench.now(one) == [one]
        inner.cancel_scope.cancel()
    assert bench.running == []


async def test_without_any_the_pools_module_is_not_loaded(
    autojump_clock: MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(agent_bench(nursery))
    monkeypatch.delitem(sys.modules, "agent.outbound.warm_pool")
    async with trio.open_nursery() as inner:
        inner.start_soon(bench.agent.data.keep_warm)
        await bench.now(targets(0))
        assert "agent.outbound.warm_pool" not in sys.modules
        inner.cancel_scope.cancel()


async def test_a_whole_agent_keeps_them_by_its_registration_and_drains_them(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    one = life(nursery, proxy_id=PROXY, listen="127.0.0.1:0")
    far = Far()
    entry = {
        "Node": {"Node": "n1", "Address": "127.0.0.1", "Datacenter": "dc1"},
        "Service": {"ID": "db-1", "Port": far.port, "Proxy": {"DestinationServiceName": "db"}},
        "Checks": [{"Status": "passing"}],
    }
    one.bench.consul.answer("/v1/health/connect/db", [entry], index=3)
    bind = f"{tmp_path}/db"
    root = one.bench.well({"DestinationName": "db", "LocalBindSocketPath": bind, "Config": {"warm": 3}})
    nursery.start_soon(far.serve, contexts_of(root.leaf(service="db"), root).server)

    def ready() -> int:
        (row,) = Incremental(upstream_status.rows(one.bench.data.reconciler.upstreams, wall())).run_now()
        return len(cast("dict[str, Any]", row["warm"])["ready"])

    async with trio.open_nursery() as inner:
        inner.start_soon(one.run)
        await one.ready()
        await one.until(lambda: ready() == far.live == 3)
        assert one.bench.data.ledger.live() == ()
        changed = proxy_answer({"DestinationName": "db", "LocalBindSocketPath": bind, "Config": {"warm": 1}})
        one.bench.consul.answer(SERVICE, changed, content_hash="h2")
        await one.until(lambda: ready() == far.live == 1)
        one.cycle.drain("the test")
        await one.until(lambda: far.live == 0)
    assert one.code is ExitCode.CLEAN, "they are nothing to wait for"
    far.sock.close()


class Far:
    """A far sidecar that admits everybody and hears nothing."""

    def __init__(self) -> None:
        self.sock = listener()
        self.port = self.sock.getsockname()[1]
        self.live = 0

    async def serve(self, context: SSL.Context) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                await trio.lowlevel.wait_readable(self.sock)
                caller, _ = self.sock.accept()
                caller.setblocking(False)
                nursery.start_soon(self._hold, caller, context)

    async def _hold(self, caller: socket.socket, context: SSL.Context) -> None:
        with caller:
            tls = await server_handshake(caller, lambda: context, 5)
            self.live += 1
            await trio.lowlevel.wait_readable(caller)
            with pytest.raises(SSL.ZeroReturnError):
                tls.recv(1)
            self.live -= 1
