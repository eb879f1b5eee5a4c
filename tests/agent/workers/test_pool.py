"""The workers as one: begun, told, replaced, added up and ended, without a process of their own."""

from __future__ import annotations

import math
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from agent.base.address import TcpAddress
from agent.base.latest import Latest
from agent.base.prometheus import text
from agent.base.watch_status import WatchStatus
from agent.config.options import LogLevel
from agent.config.registration import Registration
from agent.consul.watch import AnswerRejected
from agent.control.endpoints import EndpointWatches
from agent.handover.succession import outlasted
from agent.net.kept import KeptSockets
from agent.net.listeners import Opening
from agent.snapshot import EndpointSource
from agent.workers.link import WorkerLink
from agent.workers.messages import HandedEndpoints
from agent.workers.pool import WorkerPool
from agent.workers.reports import AskedAgain, GatewaysWanted, RefusalsUnexplained, Reported
from agent.workers.supervisor import CEILING_SECONDS, _pause
from certs.bundle import parse_roots
from certs.contexts import Contexts, build_contexts
from certs.credentials import prove
from certs.leaf import parse_leaf
from tests.agent.workers.test_listeners import greet
from tests.certs.authority import Issuer, roots_answer
from tests.support.agent_in_process import App, Caller, answers
from tests.support.agent_parts import AgentBench, agent_bench, registration, settings, virtual
from tests.support.descriptor_store import Store
from tests.support.policies import policy_of
from tests.support.worker_in_process import Nursery
from tests.upstreams.test_choose import endpoint
from upstreams.endpoints import EndpointSet
from upstreams.spec import ServiceDestination

DB = ServiceDestination("db")
ANY = TcpAddress("127.0.0.1", 0)


@pytest.fixture
def slow_clock() -> MockClock:
    """Time jumps, but not while a socket pair delivers."""
    return MockClock(autojump_threshold=0.05)


class Bench:
    def __init__(self, nursery: trio.Nursery, count: int, kept: KeptSockets | None = None) -> None:
        self.agent: AgentBench = agent_bench(nursery, settings(workers=str(count), tunnel="auto"))
        self.agent.agent.log.level = LogLevel.INFO
        self.spawn = Nursery(nursery)
        control = self.agent.control
        self.pool = WorkerPool(
            snapshot=control.snapshot,
            settings=control.settings,
            sources=control.endpoints,
            events=self.agent.agent.log,
            clock=control.clock,
            rng=control.rng,
            spawn=self.spawn,
            kept=kept,
        )
        self.listeners = self.pool._listeners

    async def serving(self) -> None:
        await self.pool._supervisor.ready()

    async def let_in(self, root: Issuer, placed: Registration) -> None:
        """Serve callers of that root, whatever their service."""
        snapshot = self.agent.control.snapshot
        snapshot.registration.publish(placed)
        snapshot.credentials.publish(contexts_of(root))
        snapshot.policy.publish(policy_of(None, "web", default_allow=True))
        await self.pool.bind(placed)
        await self.pool.open()
        await self.serving()

    async def public(self) -> dict[str, Any]:
        """The public listener's row in the status, for all workers."""
        row = (await self.pool.report(rows=True)).public
        assert row is not None
        return row

    async def metrics(self) -> str:
        return text((await self.pool.report(rows=False)).metrics)


def contexts_of(root: Issuer) -> Contexts:
    minted = root.leaf(service="web")
    leaf, bundle = parse_leaf(minted.cert_pem, minted.key_pem), parse_roots(roots_answer(root))
    return build_contexts(prove(leaf, bundle, service="web", datacenter="dc1", at=virtual()), 1)


@asynccontextmanager
async def bench(count: int = 2, kept: KeptSockets | None = None) -> AsyncIterator[Bench]:
    with trio.fail_after(1000):
        async with trio.open_nursery() as nursery:
            made = Bench(nursery, count, kept)
            async with made.pool.running():
                yield made
                await made.pool.drain(0, trio.Event())
                for worker in made.spawn.begun:
                    await worker.wait()
            nursery.cancel_scope.cancel()


async def test_all_of_them_serve_and_say_so_as_one(slow_clock: MockClock) -> None:
    async with bench() as b:
        assert b.pool.problems() == ["workers: none of 2 serves yet"]
        await b.serving()
        assert b.pool.problems() == b.pool.warnings() == []
        page = await b.metrics()
        assert "sidecar_workers 2\n" in page
        assert "sidecar_workers_serving 2\n" in page
        assert 'sidecar_connections_live{direction="inbound"} 0' in page
        assert b.pool.live() == 0
    assert [worker.returncode for worker in b.spawn.begun] == [0, 0]


@pytest.mark.parametrize("way", ["drain", "upgrade"])
async def test_callers_tunnels_are_retired_in_every_worker(way: str) -> None:
    root = Issuer.root(now=virtual())
    async with bench() as b:
        await b.let_in(root, registration(public_bind=ANY))
        address = [b.listeners.sockets("public", slot)[0].getsockname() for slot in range(2)]
        callers = [Caller(root, clock=virtual) for _ in range(8)]  # which the kernel distributes
        for number, caller in enumerate(callers):
            await caller.open_tunnel(address[number % 2])
        if way == "drain":
            await b.pool.close_public()
        else:
            b.pool.hand_over()
        for caller in callers:
            assert await caller.is_retired()
            caller.close()


async def test_a_worker_that_is_replaced_leaves_whom_it_cannot_begin_to_the_next_process() -> None:
    """In a plain drain it would accept such a caller, and turn it away."""
    root, app = Issuer.root(now=virtual()), App()
    async with bench(1) as b, trio.open_nursery() as nursery:
        nursery.start_soon(app.serve)
        at = TcpAddress(*app.sock.getsockname())
        await b.let_in(root, registration(public_bind=ANY, local_app=at, max_inbound_connections=1))
        address, first = b.listeners.sockets("public", 0)[0].getsockname(), Caller(root, clock=virtual)
        await first.connect(address)
        assert await first.say(b"first") == b"first"
        b.pool.hand_over()
        await b.serving()
        with socket.create_connection(address):
            for _ in range(5):  # turns of the worker's, in which it could accept
                row = await b.public()
                assert (row["admitted"], row["overflow"]) == (1, 0)
            first.close()
            while (row := await b.public())["admitted"] + row["overflow"] < 2:
                pass
            assert (row["admitted"], row["overflow"]) == (2, 0)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("closed", [True, False], ids=["drain", "listeners"])
async def test_a_worker_that_answers_late_in_an_upgrade_keeps_its_connections(
    monkeypatch: pytest.MonkeyPatch, *, closed: bool
) -> None:
    """On a busy machine a report may take longer than its patience, which says nothing of connections.

    Nor do the listeners close before it is heard that all connections of before have ended.
    """
    late, asked, report = 2, 0, WorkerLink.report
    heard, ended = trio.Event(), trio.Event()

    async def late_report(link: WorkerLink, **how: Any) -> Reported | None:
        nonlocal asked
        asked += 1
        found = await report(link, **how)
        if asked <= late:
            return None
        heard.set()
        return found

    root, app = Issuer.root(now=virtual()), App()
    async with bench(1) as b, trio.open_nursery() as nursery:
        nursery.start_soon(app.serve)
        at = TcpAddress(*app.sock.getsockname())
        await b.let_in(root, registration(public_bind=ANY, local_app=at))
        caller = Caller(root, clock=virtual)
        await caller.connect(b.listeners.sockets("public", 0)[0].getsockname())
        b.pool.hand_over()
        if closed:
            await b.pool.close_listeners()
        monkeypatch.setattr(WorkerLink, "report", late_report)

        async def drain() -> None:
            if closed:
                assert await b.pool.drain(math.inf, trio.Event()) == 0
            else:
                await outlasted(b.pool, math.inf, trio.Event())
            ended.set()

        nursery.start_soon(drain)
        await heard.wait()
        assert not ended.is_set()
        assert await caller.say(b"still") == b"still"
        caller.close()
        await ended.wait()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("replaced", [True, False])
async def test_sockets_stay_with_the_service_manager_for_the_next_process_alone(
    store: Store, *, replaced: bool
) -> None:
    with store.process() as kept:
        async with bench(kept=kept) as b:
            await b.let_in(Issuer.root(now=virtual()), registration(public_bind=ANY))
            address = b.listeners.sockets("public", 0)[0].getsockname()
            if replaced:
                b.pool.hand_over()
            await b.pool.close_listeners()
    assert answers(address[1]) is replaced


async def test_another_log_level_is_one_for_all(slow_clock: MockClock) -> None:
    async with bench() as b:
        await b.serving()
        b.pool.take_level(LogLevel.DEBUG)
        await b.serving()
        told = [worker.err.getvalue() for worker in b.spawn.begun]
    assert all("log.level: before=info now=debug" in text for text in told)


async def test_one_that_is_killed_is_replaced_at_once_and_the_others_stay(slow_clock: MockClock) -> None:
    async with bench() as b:
        await b.serving()
        b.spawn.begun[0].kill()
        while len(b.spawn.begun) < 3:  # noqa: ASYNC110 - a test looks
            await trio.sleep(0.01)
        await b.serving()
        assert b.spawn.begun[1].returncode is None
        page = await b.metrics()
        assert 'sidecar_worker_deaths_total{reason="killed"} 1' in page
        rows = (await b.pool.report(rows=True)).workers
        assert rows is not None
        assert [row["serving"] for row in rows] == [True, True]
        assert [row["deaths"] for row in rows if row["deaths"]] == [{"killed": 1}]
        assert "worker.ended" in b.agent.events()


async def test_one_that_cannot_be_begun_is_tried_again_later_and_later(slow_clock: MockClock) -> None:
    async with bench(1) as b:
        b.spawn.refuse = 5
        began = trio.current_time()
        await b.serving()
        assert trio.current_time() - began >= 0.5 + 1 + 2 + 4
        assert 'sidecar_worker_deaths_total{reason="not_started"} 5' in await b.metrics()


async def test_while_it_is_down_that_is_a_complaint_and_its_sockets_are_given_up(
    slow_clock: MockClock,
) -> None:
    async with bench(1) as b:
        await b.serving()
        await b.listeners.add("a", Opening(purpose="x", address=TcpAddress("127.0.0.1", 0), handler=greet))
        b.listeners.open()
        (sock,) = b.listeners.sockets("a", 0)
        b.spawn.refuse = 2
        b.spawn.begun[0].kill()
        while sock.fileno() != -1:  # noqa: ASYNC110 - a test looks
            await trio.sleep(0.01)
        assert b.pool.warnings() == [
            "worker 0 is down: not_started: [Errno 11] Resource temporarily unavailable"
        ]
        assert "not_started" in b.pool.problems()[0]
        await b.serving()


@pytest.mark.parametrize(("failures", "seconds"), [(1, 0.0), (2, 0.5), (3, 1.0), (100, CEILING_SECONDS)])
def test_the_pause_before_another_try(failures: int, seconds: float) -> None:
    assert _pause(failures) == seconds


async def test_endpoints_are_shared_and_asked_for_again(
    slow_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    explained: list[bool] = []

    def ask_again() -> None:
        nonlocal asked
        asked += 1

    endpoints: Latest[EndpointSet] = Latest()
    source = EndpointSource(endpoints=endpoints, status=WatchStatus(name="endpoints db"), ask_again=ask_again)
    async with bench() as b, trio.open_nursery() as nursery:
        b.agent.snapshot.registration.publish(registration())
        nursery.start_soon(b.pool._share, DB, None, source)
        await b.serving()
        items = b.pool._publisher.items()
        endpoints.publish(EndpointSet(endpoints=(endpoint("a"),)))
        await b.serving()
        source.status.failing = AnswerRejected("malformed", "x")
        b.pool._watch_changed(source.status)
        b.pool._watch_changed(source.status)
        b.pool._watch_changed(WatchStatus(name="another"))
        (shared,) = [item for name, item in items if isinstance(name, tuple)]
        told = shared.cell.value
        assert isinstance(told, HandedEndpoints)
        assert (told.failing, told.endpoints, shared.version) == ("malformed: x", endpoints.value, 3)
        b.pool._on_request(AskedAgain(told.number))
        b.pool._on_request(AskedAgain(99))
        b.pool._on_request(GatewaysWanted("dc2"))  # nobody watches yet
        monkeypatch.setattr(EndpointWatches, "explain_refusals", lambda _watches: explained.append(True))
        b.pool._on_request(RefusalsUnexplained())
        assert asked == len(explained) == 1
        nursery.cancel_scope.cancel()


async def test_workers_are_told_the_admin_endpoints_address_as_bound(nursery: trio.Nursery) -> None:
    made = Bench(nursery, 1)
    admin = TcpAddress("127.0.0.1", 19555)
    made.pool.reserve([admin])
    assert made.pool._supervisor._settings.admin_bind == (admin,)
