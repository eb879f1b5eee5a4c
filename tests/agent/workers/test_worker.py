"""A worker by what it is told: in the order of telling, with its part of each limit, to one of two ends."""

from __future__ import annotations

import io
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
import trio.lowlevel

from agent import VERSION
from agent.base.address import TcpAddress
from agent.base.clock import monotonic
from agent.base.exits import ExitCode
from agent.config.settings import Settings
from agent.policy.deny_list import parse_deny_list
from agent.workers.channel import Channel
from agent.workers.messages import (
    Finish,
    HandedConfirmation,
    HandedEndpoints,
    HandedSockets,
    Leaving,
    Message,
    Report,
    Unwatched,
    Welcome,
    Withdrawn,
    encode,
    hand_on,
    without_secrets,
)
from agent.workers.reports import AskedAgain, GatewaysWanted, Reported, WorkerMessage, read
from agent.workers.worker import main, serve, share, shared_out
from certs.bundle import parse_roots
from certs.contexts import build_contexts
from certs.credentials import prove
from certs.leaf import parse_leaf
from tests.certs.authority import Issuer, roots_answer
from tests.support.agent_in_process import SECONDS, App, Caller, wall
from tests.support.agent_parts import registration, settings
from tests.support.policies import policy_of
from upstreams.spec import ServiceDestination, parse_upstream_flag


class Told:
    """The control process's end."""

    def __init__(self, sock: socket.socket) -> None:
        self.channel = Channel(sock)
        self.code: ExitCode | None = None
        self.err = io.StringIO()
        self.first_reports = 0

    async def tell(self, *orders: Message) -> None:
        for order in orders:
            await self.channel.send(encode(order))

    async def word(self) -> WorkerMessage:
        return read((await self.channel.receive())[0])

    async def report(self, *, rows: bool = True) -> Reported:
        await self.tell(Report(number=1, rows=rows))
        word = await self.word()
        assert isinstance(word, Reported)
        return word

    async def run(self, sock: socket.socket) -> None:
        channel = Channel(sock)
        self.code = await serve(channel, self.err, wall, self._reported)
        channel.close()

    def _reported(self) -> None:
        self.first_reports += 1


def welcome(told: Settings | None = None, **fields: object) -> Welcome:
    told = without_secrets(told or settings(drain_seconds="1"))
    return replace(Welcome(version=VERSION, slot=1, workers=2, settings=told), **fields)  # type: ignore[arg-type]


@asynccontextmanager
async def worker(first: Message | None = None) -> AsyncIterator[Told]:
    ours, theirs = socket.socketpair()
    told = Told(ours)
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(told.run, theirs)
            await told.tell(first or welcome())
            yield told
            told.channel.close()


def credentials(root: Issuer) -> Message:
    minted = root.leaf(service="web")
    leaf, bundle = parse_leaf(minted.cert_pem, minted.key_pem), parse_roots(roots_answer(root))
    proven = prove(leaf, bundle, service="web", datacenter="dc1", at=wall())
    return hand_on(build_contexts(proven, 1), "web", "dc1", wall())


def confirmed(*, ago: float) -> Message:
    """By a clock that both processes have; the wall clock may have been set."""
    return HandedConfirmation(at=wall(), monotonic=monotonic() - ago)


async def test_it_serves_callers_and_cuts_them_when_intentions_change() -> None:
    root, app = Issuer.root(), App()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.serve)
        host, _, port = app.address.partition(":")
        effective = registration(local_app=TcpAddress(host, int(port)))
        with socket.create_server(("127.0.0.1", 0)) as public:
            async with worker() as told:
                await told.tell(effective, credentials(root), policy_of(None, "web", default_allow=True))
                sockets = HandedSockets(key="public", purpose="callers")
                await told.channel.send(encode(sockets), [public.fileno()])
                caller = Caller(root)
                await caller.connect(public.getsockname())
                assert await caller.say(b"hello") == b"hello"
                row = (await told.report()).connections[0]
                assert row["peer"].endswith("/svc/client")
                await told.tell(policy_of(None, "web", default_allow=False))
                while (reported := await told.report()).live:
                    pass
                assert await caller.say(b"hello") == b""
                caller.close()
                assert reported.counters["endings"]["inbound"] == {"intention_withdrawn": 1}
                await told.tell(Finish())
                last = await told.word()
                assert isinstance(last, Reported)
                assert last.cut == 0
        nursery.cancel_scope.cancel()
    app.sock.close()
    assert told.code is ExitCode.CLEAN
    assert all(line.endswith("worker=1") for line in told.err.getvalue().splitlines())


async def test_the_deny_list_is_in_force_in_a_worker_too() -> None:
    root = Issuer.root()
    with socket.create_server(("127.0.0.1", 0)) as public:
        async with worker() as told:
            denied = parse_deny_list(f"spiffe://{root.trust_domain}/ns/default/dc/*/svc/client")
            await told.tell(denied, registration(), credentials(root))
            await told.tell(policy_of(None, "web", default_allow=True))
            await told.channel.send(encode(HandedSockets(key="public", purpose="callers")), [public.fileno()])
            caller = Caller(root)
            await caller.connect(public.getsockname())
            assert await caller.say(b"hello") == b""
            caller.close()
            while not (endings := (await told.report()).counters["endings"]["inbound"]):
                pass
            assert endings == {"deny_listed": 1}


@pytest.mark.parametrize("rotated", [False, True], ids=["leaving", "rotated"])
async def test_a_tunnel_is_retired_when_callers_are_to_leave_and_by_newer_credentials(rotated: bool) -> None:
    root = Issuer.root()
    with socket.create_server(("127.0.0.1", 0)) as public:
        async with worker(welcome(settings(tunnel="auto"))) as told:
            await told.tell(registration(), credentials(root), policy_of(None, "web", default_allow=True))
            sockets = HandedSockets(key="public", purpose="callers")
            await told.channel.send(encode(sockets), [public.fileno()])
            caller = Caller(root)
            await caller.open_tunnel(public.getsockname())
            await told.tell(credentials(root) if rotated else Leaving())
            assert await caller.is_retired()
            caller.close()
            await told.tell(Finish())
            await told.word()


async def test_what_is_withdrawn_lets_nobody_in() -> None:
    with socket.create_server(("127.0.0.1", 0)) as public:
        async with worker() as told:
            await told.tell(registration())
            await told.channel.send(encode(HandedSockets(key="public", purpose="callers")), [public.fileno()])
            found = (await told.report()).public
            assert found is not None
            assert found["listening"] is True
            await told.tell(Withdrawn(key="public"))
            found = (await told.report()).public
            assert found is not None
            assert found["listening"] is False


async def test_it_follows_the_registration_with_its_part_of_the_limits() -> None:
    limited = replace(parse_upstream_flag("db:9191"), max_connections=5)
    async with worker() as told:
        await told.tell(registration(upstreams=(limited,)))
        (row,) = (await told.report()).upstreams
        assert row["limits"]["max_connections"] == 3
        await told.tell(registration(upstreams=(parse_upstream_flag("cache:9192"),)))
        (row,) = (await told.report()).upstreams
        assert row["upstream"] == "cache"


async def test_it_asks_its_control_process_where_upstreams_are() -> None:
    gate = replace(parse_upstream_flag("db@dc2:9191"))
    lookup = ServiceDestination("db", "dc2")
    async with worker() as told:
        await told.tell(registration(upstreams=(gate,)))
        await told.tell(
            HandedEndpoints(
                number=4, lookup=lookup, poll_interval=None, polled=False, endpoints=None, failing="away"
            )
        )
        (row,) = (await told.report()).upstreams
        assert row["targets"][0]["failing"] == "handed_on: away"
        await told.tell(Unwatched(number=4))
        (row,) = (await told.report()).upstreams
        assert row["targets"][0]["failing"] is None


async def test_alone_it_ends_when_its_connections_have() -> None:
    async with worker() as told:
        await told.tell(registration())
        await told.report()
    assert told.code is ExitCode.FAILED
    assert "the control process is gone" in told.err.getvalue()


@pytest.mark.parametrize("first", [welcome(version="0.0.0"), welcome(format=99), Report(number=1)], ids=str)
async def test_one_of_another_version_serves_nobody(first: Message) -> None:
    async with worker(first) as told:
        pass
    assert told.code is ExitCode.FAILED
    assert "worker.mismatch" in told.err.getvalue()


async def test_what_follows_the_first_report_is_done_once() -> None:
    async with worker() as told:
        for _ in range(3):
            await told.report()
        assert told.first_reports == 1


async def test_never_welcomed_it_goes_without_a_word() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    channel = Channel(theirs)
    assert await serve(channel, io.StringIO(), wall) is ExitCode.CLEAN
    channel.close()


async def test_a_bug_is_told_and_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("agent.workers.worker.taken_up", broken)
    async with worker() as told:
        await told.tell(registration(), credentials(Issuer.root()))
        await trio.lowlevel.checkpoint()
        while told.code is None:  # noqa: ASYNC110 - a test looks
            await trio.sleep(0.01)
    assert told.code is ExitCode.FAILED
    assert "ZeroDivisionError" in told.err.getvalue()
    assert "PRIVATE" not in told.err.getvalue()


@pytest.mark.parametrize("words", [[], ["x"], ["1", "2"]])
def test_nobody_begins_it_by_hand(words: list[str]) -> None:
    err = io.StringIO()
    assert main(words, err) == ExitCode.USAGE
    assert "not by hand" in err.getvalue()


def test_a_part_of_a_limit_is_rounded_up() -> None:
    assert [share(limit, 2) for limit in (None, 1, 2, 5)] == [None, 1, 1, 3]
    whole = registration(max_inbound_connections=7)
    assert shared_out(whole, 4).max_inbound_connections == 2
    assert {AskedAgain(1), GatewaysWanted(None)}  # hashable: said once while nobody has heard


async def test_it_ages_intentions_by_itself_when_it_is_told_nothing_more() -> None:
    """As with a control process that hangs; what it says once it is back holds at once."""
    root, app = Issuer.root(), App()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.serve)
        host, _, port = app.address.partition(":")
        allow = policy_of(None, "web", default_allow=True)
        with socket.create_server(("127.0.0.1", 0)) as public:
            async with worker(welcome(settings(drain_seconds="1", intentions_max_age="90"))) as told:
                effective = registration(local_app=TcpAddress(host, int(port)))
                await told.tell(effective, credentials(root), allow, confirmed(ago=0.0))
                sockets = HandedSockets(key="public", purpose="callers")
                await told.channel.send(encode(sockets), [public.fileno()])
                early, late = Caller(root), Caller(root)
                await early.connect(public.getsockname())
                assert await early.say(b"hello") == b"hello"
                assert (await told.report()).live == 1
                await told.tell(confirmed(ago=89.95))
                while (await told.report()).live:  # nothing more is told: it is the worker who cuts it
                    pass
                await late.connect(public.getsockname())
                assert await late.say(b"hello") == b""
                while (reported := await told.report()).live:
                    pass
                assert reported.counters["endings"]["inbound"] == {"intentions_too_old": 2}
                await told.tell(confirmed(ago=0.0))
                again = Caller(root)
                await again.connect(public.getsockname())
                assert await again.say(b"hello") == b"hello"
                for one in (early, late, again):
                    one.close()
                await told.tell(Finish())
        nursery.cancel_scope.cancel()
    app.sock.close()
