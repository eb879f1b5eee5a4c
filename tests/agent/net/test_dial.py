"""Dialling names every failure; what is no connection to somebody else is one, too."""

from __future__ import annotations

import errno
import gc
import os
import socket
from collections.abc import Callable
from pathlib import Path
from socket import AF_INET, AF_UNIX

import pytest
import trio
import trio.testing

from agent.base.address import Address, TcpAddress, UnixAddress
from agent.net import dial as legs
from agent.net.dial import HEAD_START, DialFailed, DialReason, dial, remote, tune
from tests.support.socket_pairs import listener


async def failure(address: TcpAddress | UnixAddress, seconds: float = 2.0) -> DialFailed:
    with pytest.raises(DialFailed) as caught:
        await dial(address, seconds)
    assert str(address) in caught.value.detail
    assert str(caught.value).startswith(caught.value.reason.value)
    return caught.value


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_dialled_leg_is_connected_non_blocking_and_tuned(host: str) -> None:
    with listener() as server:
        sock = await dial(TcpAddress(host, server.getsockname()[1]), 2)
        with sock:
            assert sock.gettimeout() == 0
            assert remote(sock) == f"127.0.0.1:{server.getsockname()[1]}"
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


async def test_an_address_that_is_no_name_is_not_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio.socket, "getaddrinfo", None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        (await dial(TcpAddress("127.0.0.1", server.getsockname()[1]), 5)).close()


async def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "app"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert (await failure(UnixAddress(str(path)))).reason is DialReason.REFUSED
        server.listen()
        with await dial(UnixAddress(str(path)), 2) as sock:
            tune(sock)
            assert remote(sock) == "unix"
    assert (await failure(UnixAddress(str(tmp_path / "none")))).reason is DialReason.NO_SOCKET


async def test_a_unix_socket_whose_backlog_is_full_is_tried_until_the_time_is_up(tmp_path: Path) -> None:
    path = tmp_path / "app"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(0)
        first = await dial(UnixAddress(str(path)), 2)
        with first:
            assert (await failure(UnixAddress(str(path)), 0.1)).reason is DialReason.TIMEOUT
            async with trio.open_nursery() as nursery:

                async def make_room() -> None:
                    await trio.sleep(0.02)
                    server.accept()[0].close()

                nursery.start_soon(make_room)
                (await dial(UnixAddress(str(path)), 2)).close()


async def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = TcpAddress(*closed.getsockname())
    assert (await failure(address)).reason is DialReason.REFUSED


async def test_nobody_answers() -> None:
    """A backlog that is full swallows the SYN."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        address = TcpAddress(*server.getsockname())
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex((address.host, address.port))
        assert (await failure(address, 0.1)).reason is DialReason.TIMEOUT
        for sock in waiting:
            sock.close()


@pytest.mark.parametrize(
    "address",
    [
        TcpAddress("127.0.0.1", 70_000),
        TcpAddress("127.0.0.1", -1),
        TcpAddress("::1", 10**30),
        TcpAddress("localhost", 70_000),
        UnixAddress("/run/" + "x" * 200),
    ],
    ids=str,
)
async def test_what_can_be_no_address(address: Address) -> None:
    assert (await failure(address)).reason is DialReason.BAD_ADDRESS


@pytest.mark.parametrize("name", ["no-such-host.invalid", "x" * 300, "..", "x\0y", "ü" * 70 + ".test"])
async def test_a_name_that_is_none(name: str) -> None:
    assert (await failure(TcpAddress(name, 80))).reason is DialReason.UNRESOLVED


def names(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """From now on every name has these addresses."""
    named(monkeypatch, *((AF_INET, address) for address in addresses))


def named(
    monkeypatch: pytest.MonkeyPatch,
    *places: tuple[socket.AddressFamily, str | tuple[str, int]],
    then: Callable[[], None] = lambda: None,
) -> None:
    """From now on every name has these places, of any family; `then` follows the answer."""

    async def getaddrinfo(*_: object, **__: object) -> list[object]:
        await trio.lowlevel.checkpoint()
        then()
        return [(family, socket.SOCK_STREAM, 6, "", address) for family, address in places]

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)


async def test_a_dead_address_of_a_name_costs_only_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as swallows, listener() as answers, socket.create_server(("127.0.0.1", 0)) as gone:
        closed = gone.getsockname()
        gone.close()
        swallows.bind(("127.0.0.1", 0))
        swallows.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(swallows.getsockname())
        names(monkeypatch, closed, swallows.getsockname(), answers.getsockname())
        began = trio.current_time()
        with await dial(TcpAddress("db.example", 1), 60) as sock:
            assert sock.getpeername() == answers.getsockname()
        assert HEAD_START <= trio.current_time() - began < 3 * HEAD_START
        names(monkeypatch, closed, swallows.getsockname())
        assert (await failure(TcpAddress("db.example", 1), 0.2)).reason is DialReason.TIMEOUT
        names(monkeypatch)
        assert (await failure(TcpAddress("db.example", 1), 0.2)).reason is DialReason.UNRESOLVED
        for sock in waiting:
            sock.close()


def open_files() -> int:
    """Return how many descriptors are open; what an earlier test left to the collector is closed first."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_the_loser_of_a_race_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both connect in the same moment: who comes second is not kept."""
    monkeypatch.setattr(legs, "HEAD_START", 0.0)
    with listener() as first, listener() as second:
        before = open_files()
        for _ in range(20):
            names(monkeypatch, first.getsockname(), second.getsockname())
            with await dial(TcpAddress("db.example", 1), 5):
                assert open_files() == before + 1
        assert open_files() == before


async def test_one_address_given_twice_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        closed = gone.getsockname()
    names(monkeypatch, closed, closed)
    assert (await failure(TcpAddress("db.example", 1))).reason is DialReason.REFUSED


def test_address_families_take_turns() -> None:
    four = [(socket.AF_INET, (f"192.0.2.{number}", 1)) for number in range(3)]
    six = [(socket.AF_INET6, (f"2001:db8::{number}", 1, 0, 0)) for number in range(2)]
    assert legs._alternating([*six, *four]) == [six[0], four[0], six[1], four[1], four[2]]


async def test_a_dead_port_that_the_kernel_chose_for_our_own_end_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A simultaneous open with oneself: what was written would be read as the answer."""
    with listener() as gone:
        host, port = gone.getsockname()
    sockets = socket.socket

    def there(family: int, kind: int) -> socket.socket:
        sock = sockets(family, kind)
        sock.bind((host, port))
        return sock

    monkeypatch.setattr(legs.socket, "socket", there)  # type: ignore[attr-defined]
    for _ in range(2):  # the port is free again at once
        assert (await failure(TcpAddress(host, port))).reason is DialReason.ITSELF
    monkeypatch.undo()
    with socket.create_server((host, port)):
        (await dial(TcpAddress(host, port), 2)).close()


@pytest.mark.parametrize("host", ["127.0.0.1", "db.example"])
async def test_our_own_listener_is_not_connected_to(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    with listener() as ours:
        names(monkeypatch, ours.getsockname(), ours.getsockname())
        port = ours.getsockname()[1]
        with pytest.raises(DialFailed) as caught:
            await dial(TcpAddress(host, port), 2, shun=lambda _family, place: "x" if place[1] == port else "")
        assert caught.value.reason is DialReason.OWN_LISTENER
        with pytest.raises(BlockingIOError):
            ours.accept()


async def test_a_name_is_tried_at_its_families_in_turns(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first address is dead: the second family has its turn before the first family's second address."""
    with (
        listener() as second,
        socket.create_server(("127.0.0.1", 0)) as gone,
        socket.socket(AF_UNIX) as other,
    ):
        closed = gone.getsockname()
        gone.close()
        other.bind(str(tmp_path / "socket"))
        other.listen()
        places = [(AF_INET, closed), (AF_INET, second.getsockname()), (AF_UNIX, str(tmp_path / "socket"))]
        named(monkeypatch, *places)
        with await dial(TcpAddress("db.example", 1), 5) as sock:
            assert sock.family is AF_UNIX


async def test_who_connects_in_the_moment_the_time_is_up_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    with listener() as first, listener() as second, trio.CancelScope() as time:
        before = open_files()
        addresses = [(AF_INET, first.getsockname()), (AF_INET, second.getsockname())]
        named(monkeypatch, *addresses, then=time.cancel)
        try:
            await dial(TcpAddress("db.example", 1), 5)
        finally:
            first.accept()[0].close()  # there was a connection
            assert open_files() == before
    assert time.cancelled_caught


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.EMFILE, DialReason.NO_RESOURCES),
        (errno.EACCES, DialReason.NOT_PERMITTED),
        (errno.EPROTO, DialReason.FAILED),
        (None, DialReason.FAILED),
    ],
)
async def test_no_socket_to_be_had(
    monkeypatch: pytest.MonkeyPatch, code: int | None, reason: DialReason
) -> None:
    def none_left(*_: object) -> socket.socket:
        raise OSError(code, "none left") if code else OSError("none left")

    monkeypatch.setattr(legs.socket, "socket", none_left)  # type: ignore[attr-defined]
    assert (await failure(TcpAddress("127.0.0.1", 1))).reason is reason


async def test_a_cancelled_dial_closes_its_socket() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        address = TcpAddress(*server.getsockname())
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex((address.host, address.port))
        with trio.move_on_after(0.05) as scope:
            await dial(address, 10)
        assert scope.cancelled_caught  # and an unclosed socket would be a warning, which is an error here
        for sock in waiting:
            sock.close()


def test_the_other_end_of_a_socket_that_was_reset() -> None:
    with socket.socket() as sock:
        assert remote(sock) == "gone (ENOTCONN)"


def test_an_ipv6_end() -> None:
    if not os.path.exists("/proc/net/if_inet6"):  # noqa: PTH110 - a fact of the kernel
        pytest.skip("no IPv6 here")
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 loopback here")
    with server, socket.create_connection(server.getsockname()[:2]) as sock:
        assert remote(sock) == f"[::1]:{server.getsockname()[1]}"
