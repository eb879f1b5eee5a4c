"""The public listener goes along with the registration."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
from trio.testing import wait_all_tasks_blocked

from agent.base.address import TcpAddress
from agent.config.registration import Registration
from agent.inbound.exposed import Callers
from agent.net.inherited import InheritedSockets
from agent.net.listeners import Listeners
from agent.outbound.listeners import UpstreamListeners
from agent.proxy.exposed import ExposedPaths
from agent.proxy.reconcile import PUBLIC, Reconciler
from tests.support.agent_parts import AgentBench, agent_bench, registration, settings
from upstreams.spec import Upstream, parse_upstream_flag


@dataclass
class Upstreams:
    """What the upstreams were told."""

    told: list[Sequence[Upstream]] = field(default_factory=list)

    async def bind(self, upstreams: Sequence[Upstream]) -> None:
        self.told.append(upstreams)

    async def follow(self, upstreams: Sequence[Upstream], grace: float, connections: trio.Nursery) -> None:
        self.told.append(upstreams)


@dataclass
class Bench:
    agent: AgentBench
    following: Reconciler
    upstreams: Upstreams

    async def now(self, effective: Registration) -> None:
        """Another registration, carried out."""
        self.agent.snapshot.registration.publish(effective)
        for _ in range(3):
            await wait_all_tasks_blocked(0.01)

    def port(self) -> int:
        """Where the public listener is; 0 if there is none."""
        opening = self.following.listeners.get(PUBLIC)
        port: int = 0 if opening is None else opening.bound[0].sock.getsockname()[1]
        return port


@asynccontextmanager
async def begun(
    nursery: trio.Nursery, effective: Registration, inherited: socket.socket | None = None, **flags: str
) -> AsyncIterator[Bench]:
    """A registration carried out and being followed."""
    agent = agent_bench(nursery, settings(**flags))
    upstreams = Upstreams()
    told: UpstreamListeners = upstreams  # type: ignore[assignment]  # what of it is used
    async with trio.open_nursery() as connections, trio.open_nursery() as loops:
        listeners = Listeners(agent.agent.log)
        exposed = ExposedPaths(listeners=listeners, ledger=agent.data.ledger, callers=Callers(("host",)))
        following = Reconciler(
            registration=agent.snapshot.registration,
            settings=agent.control.settings,
            listeners=listeners,
            upstreams=told,
            exposed=exposed,
            serve_inbound=agent.data.inbound,
            inherited=InheritedSockets([] if inherited is None else [("public", inherited)]),
        )
        following.serve_in(loops, connections)
        await following.bind(effective)
        following.listeners.open()
        agent.snapshot.registration.publish(effective)
        loops.start_soon(following.follow)
        yield Bench(agent, following, upstreams)
        await following.listeners.close_all()
        loops.cancel_scope.cancel()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def on(port: int, **fields: object) -> Registration:
    return registration(public_bind=TcpAddress("127.0.0.1", port), **fields)


async def test_a_change_that_is_none_of_its_own_leaves_the_listener_alone(nursery: trio.Nursery) -> None:
    port = free_port()
    async with begun(nursery, on(port)) as bench:
        before = bench.following.listeners.get(PUBLIC)
        assert before is not None
        db = parse_upstream_flag("db:9191")
        await bench.now(on(port, upstreams=(db,), max_inbound_connections=5))
        assert bench.following.listeners.get(PUBLIC) is before
        assert before.admission.limit == 5
        assert bench.upstreams.told == [(), (db,)]


async def test_a_limit_of_the_settings_holds_where_the_registration_has_none(nursery: trio.Nursery) -> None:
    async with begun(nursery, on(0), max_connections="7") as bench:
        opening = bench.following.listeners.get(PUBLIC)
        assert opening is not None
        assert opening.admission.limit == 7


async def test_it_moves_goes_and_comes_back(nursery: trio.Nursery) -> None:
    first, second = free_port(), free_port()
    async with begun(nursery, on(first)) as bench:
        await bench.now(on(second))
        assert bench.port() == second
        await bench.now(registration(public_bind=None))
        assert bench.port() == 0
        await bench.now(on(first))
        assert bench.port() == first
        await bench.now(on(first, local_app=None))
        assert bench.port() == 0, "nobody can be passed on"


async def test_one_that_would_meet_the_app_is_closed_and_opened_again_when_it_is_free(
    nursery: trio.Nursery,
) -> None:
    port = free_port()
    async with begun(nursery, on(port)) as bench:
        await bench.now(on(port, public_unserved=True))
        assert bench.port() == 0
        await bench.now(on(port))
        assert bench.port() == port


async def test_consuls_check_has_no_listener_where_another_should_be(nursery: trio.Nursery) -> None:
    async with begun(nursery, on(free_port())) as bench:
        opening = bench.following.listeners.get(PUBLIC)
        assert opening is not None
        assert (opening.checked, opening.meshed) == (True, True)
        await bench.now(on(bench.port(), checked=False))
        after = bench.following.listeners.get(PUBLIC)
        assert after is not None
        assert not after.checked


async def test_a_socket_that_was_handed_in_stays_wherever_the_registration_goes(
    nursery: trio.Nursery,
) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    port = sock.getsockname()[1]
    with sock:
        async with begun(nursery, on(free_port()), sock) as bench:
            assert bench.port() == port
            await bench.now(on(free_port()))
            assert bench.port() == port
            assert [problem.split(":")[1] for problem in bench.following.problems] == [" socket_elsewhere"]
            await bench.now(on(port, checked=False))
            assert (bench.port(), bench.following.problems) == (port, [])
            await bench.now(registration(public_bind=None))
            assert bench.following.warnings[0].startswith("socket_unused: 'public' of systemd at ")
            await bench.now(on(port))
            assert (bench.port(), bench.following.warnings) == (port, [])
            assert bench.agent.events().count("socket.complaint") == 3
