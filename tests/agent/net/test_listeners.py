"""Listeners over real loopback sockets: what cannot be had now is tried again."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from agent.base.address import Address, TcpAddress, UnixAddress
from agent.net.admission import Admission, Overflow, Slot
from agent.net.bind import BindFailed, Bound, bind
from agent.net.inherited import SocketComplaint
from agent.net.kept import KeptSockets
from agent.net.listeners import CHECK, RETRY_SECONDS, Listeners, Opening, limits_reached
from tests.support.descriptor_store import Store
from tests.support.faults import NoFaults


class Heard(NoFaults):
    """agent.net.listeners.ListenerEvents, written down."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def listening(self, purpose: str, address: str) -> None:
        self.told.append(("listening", purpose))

    def listening_ended(self, purpose: str, address: str) -> None:
        self.told.append(("ended", purpose))

    def listening_failed(self, purpose: str, detail: str) -> None:
        self.told.append(("failed", purpose))

    def socket_complaint(self, complaint: SocketComplaint, /) -> None:
        self.told.append(("complaint", complaint.name))

    def overflowed(self, admission: Admission, reason: Overflow, /) -> None:
        self.told.append(("overflowed", ""))

    def exhausted(self, error: OSError, /) -> None:
        self.told.append(("exhausted", ""))


class Bench:
    def __init__(self, listeners: Listeners, heard: Heard) -> None:
        self.listeners = listeners
        self.heard = heard

    async def greet(self, sock: socket.socket, _place: Slot) -> None:
        sock.send(b"hello")
        sock.close()

    def opening(self, address: Address, purpose: str = "x", *, checked: bool = False) -> Opening:
        return Opening(purpose=purpose, address=address, handler=self.greet, checked=checked)

    def port(self, key: str) -> int:
        opening = self.listeners.get(key)
        assert opening is not None
        port: int = opening.bound[0].sock.getsockname()[1]
        return port


@asynccontextmanager
async def bench(kept: KeptSockets | None = None) -> AsyncIterator[Bench]:
    async with trio.open_nursery() as connections, trio.open_nursery() as loops:
        heard = Heard()
        made = Bench(Listeners(heard, kept).serve_in(loops, connections), heard)
        yield made
        await made.listeners.close_all()
        connections.cancel_scope.cancel()


async def hello(port: int) -> bytes:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        with trio.fail_after(5):
            return bytes(await stream.receive_some())


def refuses(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as caller:
        return caller.connect_ex((host, port)) != 0


ANY = TcpAddress("127.0.0.1", 0)


async def test_bound_at_once_open_later_free_at_the_end() -> None:
    async with bench() as b:
        await b.listeners.bind("a", b.opening(ANY))
        port = b.port("a")
        assert refuses(port)
        b.listeners.open()
        assert await hello(port) == b"hello"
        await b.listeners.close("a")
        assert refuses(port)
        assert b.listeners.get("a") is None
        await b.listeners.close("a")  # it is closed already
    assert b.heard.told == [("listening", "x"), ("ended", "x")]


@pytest.mark.parametrize("number", [errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.ENOENT])
async def test_what_depends_on_the_moment_is_told_and_tried_again_and_the_rest_opened(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    async with bench() as b:
        wanted, attempts = b.opening(TcpAddress("127.0.0.1", 7)), [number, number, 0]

        async def refused_twice(address: TcpAddress, purpose: str, *_mode: object, **_kind: object) -> Bound:
            if address.port == 7 and (refusal := attempts.pop(0)):
                raise BindFailed(purpose, address, OSError(refusal, os.strerror(refusal)))
            return await bind(TcpAddress("127.0.0.1", 0), purpose)

        monkeypatch.setattr("agent.net.listeners.bind", refused_twice)
        await b.listeners.bind("a", wanted)
        await b.listeners.bind("b", b.opening(TcpAddress("127.0.0.1", 0)))
        b.listeners.open()
        assert (len(b.listeners.problems), wanted.listening) == (1, False)
        with trio.move_on_after(3 * RETRY_SECONDS):
            await b.listeners.retry_failed()
        assert (b.listeners.problems, wanted.listening) == ([], True)
    assert [event for event, _ in b.heard.told] == ["failed", "listening", "listening", "ended", "ended"]


async def test_what_no_retry_helps_to_ends_a_start(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench() as b:

        async def denied(address: TcpAddress, purpose: str, *_mode: object, **_kind: object) -> Bound:
            raise BindFailed(purpose, address, PermissionError(errno.EACCES, "Permission denied"))

        monkeypatch.setattr("agent.net.listeners.bind", denied)
        with pytest.raises(BindFailed, match="no permission"):
            await b.listeners.bind("a", b.opening(TcpAddress("127.0.0.1", 7)))


async def test_one_that_was_never_opened_is_given_back(tmp_path: Path) -> None:
    async with bench() as b:
        path = tmp_path / "s"
        await b.listeners.bind("a", b.opening(UnixAddress(str(path))))
        assert path.exists()
        b.listeners.release()
        assert not path.exists()


async def test_one_more_while_it_runs() -> None:
    async with bench() as b:
        b.listeners.open()
        await b.listeners.add("a", b.opening(ANY))
        assert await hello(b.port("a")) == b"hello"
        assert list(b.listeners.all()) == ["a"]


async def test_what_cannot_be_had_is_told_once_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.net.listeners.RETRY_SECONDS", 0.01)
    async with bench() as b:
        b.listeners.open()
        other = socket.create_server(("127.0.0.1", 0))
        port = other.getsockname()[1]
        await b.listeners.add("a", b.opening(TcpAddress("127.0.0.1", port)))
        (problem,) = b.listeners.problems
        assert f"127.0.0.1:{port}" in problem
        async with trio.open_nursery() as retrying:
            retrying.start_soon(b.listeners.retry_failed)
            await trio.sleep(0.05)
            assert b.heard.told == [("failed", "x")]
            other.close()
            with trio.fail_after(5):
                while b.listeners.problems:  # noqa: ASYNC110 - the retry's own time
                    await trio.sleep(0.01)
            retrying.cancel_scope.cancel()
        assert await hello(port) == b"hello"
    assert b.heard.told[:2] == [("failed", "x"), ("listening", "x")]


async def test_one_that_is_closed_while_it_is_being_bound_stays_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, go_on = trio.Event(), trio.Event()

    async def slowly(
        address: Address, purpose: str, mode: int | None = None, *, shareable: bool = False
    ) -> Bound:
        begun.set()
        await go_on.wait()
        return await bind(address, purpose, mode, shareable=shareable)

    monkeypatch.setattr("agent.net.listeners.bind", slowly)
    async with bench() as b:
        b.listeners.open()
        opening = b.opening(ANY)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.listeners.add, "a", opening)
            await begun.wait()
            await b.listeners.close("a")
            go_on.set()
        assert b.listeners.get("a") is None
        assert not opening.listening
        assert not opening.bound


@pytest.mark.parametrize(("host", "twin"), [("127.0.0.1", False), ("127.0.0.9", False), ("0.0.0.0", False)])
async def test_a_listener_consul_s_check_reaches_needs_no_second_address(host: str, twin: bool) -> None:
    async with bench() as b:
        await b.listeners.bind("public", b.opening(TcpAddress(host, 0), checked=True))
        opening = b.listeners.get("public")
        assert opening is not None
        assert (len(opening.bound) == 2) is twin
        b.listeners.open()


def outside_address() -> str | None:
    """An address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        host: str = probe.getsockname()[0]
        return None if host.startswith("127.") else host


OUTSIDE = outside_address()
needs_outside = pytest.mark.skipif(OUTSIDE is None, reason="this machine has no address but loopback")


@needs_outside
async def test_a_listener_on_an_outside_address_answers_the_check_too() -> None:
    async with bench() as b:
        await b.listeners.bind("public", b.opening(TcpAddress(OUTSIDE or "", 0), checked=True))
        b.listeners.open()
        opening = b.listeners.get("public")
        assert opening is not None
        port = b.port("public")
        assert opening.addresses == [f"{OUTSIDE}:{port}", f"127.0.0.1:{port}"]
        assert await hello(port) == b"hello"
        assert not refuses(port, OUTSIDE or "")


@needs_outside
async def test_when_the_check_s_address_is_taken_only_the_check_is_lost() -> None:
    async with bench() as b:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            await b.listeners.bind("public", b.opening(TcpAddress(OUTSIDE or "", port), checked=True))
            b.listeners.open()
            assert not refuses(port, OUTSIDE or "")
    assert ("failed", CHECK) in b.heard.told


async def test_a_unix_socket_needs_no_second_address(tmp_path: Path) -> None:
    async with bench() as b:
        await b.listeners.bind("s", b.opening(UnixAddress(str(tmp_path / "s")), checked=True))
        opening = b.listeners.get("s")
        assert opening is not None
        assert opening.addresses == [f"unix:{tmp_path}/s"]


async def test_a_listener_is_left_to_a_successor_and_closed_without_one() -> None:
    store = Store()
    with store.process() as kept:
        async with bench(kept) as b:
            await b.listeners.bind("a", b.opening(ANY))
            assert store.kept == {}  # who connects before it is open is refused, as without a store
            b.listeners.open()
            port = b.port("a")
            b.listeners.successor = True
    assert not refuses(port)
    with store.process() as kept:
        async with bench(kept) as b:
            await b.listeners.bind("a", b.opening(TcpAddress("127.0.0.1", port)))
            waiting = await trio.open_tcp_stream("127.0.0.1", port)
            b.listeners.open()
            async with waiting:
                assert await waiting.receive_some() == b"hello"
            await b.listeners.close("a")
    assert store.kept == {}
    assert refuses(port)


async def test_a_listener_at_its_limit_is_said_to_be_full() -> None:
    async with bench() as b:
        await b.listeners.bind("a", b.opening(ANY, "upstream db"))
        opening = b.listeners.get("a")
        assert opening is not None
        opening.admission = Admission(2)
        opening.admission.live = 1
        assert limits_reached(b.listeners) == []
        opening.admission.live = 2
        assert limits_reached(b.listeners) == ["upstream db is full: 2 of 2 connections"]
        opening.admission = Admission(None, 4, fair=True)
        opening.admission.turn_away(Overflow.HANDSHAKES, "192.0.2.1")
        (said,) = limits_reached(b.listeners)
        assert said.startswith("upstream db: 192.0.2.1 has its share of the handshakes, 2 of 4")
