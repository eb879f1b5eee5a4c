"""systemd's protocols, with real datagram sockets and real inherited descriptors."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from agent.process.systemd import Notifier, inherited_descriptors, notifier, sockets_among


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A service manager's socket and its address as NOTIFY_SOCKET has it."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.setblocking(False)
    address = (
        str(tmp_path / "notify") if request.param == "path" else f"@sidecar-test-{os.getpid()}-{id(sock)}"
    )
    sock.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
    yield sock, address
    sock.close()


def test_messages_arrive(manager: tuple[socket.socket, str]) -> None:
    sock, address = manager
    environ = {"NOTIFY_SOCKET": address, "OTHER": "x"}
    talk = notifier(environ, 1)
    talk.send("READY=1", "STATUS=serving\nMAINPID=1")
    assert sock.recv(4096) == b"READY=1\nSTATUS=serving MAINPID=1"
    assert environ == {"OTHER": "x"}, "children are not asked"
    assert talk.watchdog_seconds is None


def test_without_a_manager_nothing_happens() -> None:
    talk = notifier({}, 1)
    talk.send("READY=1")
    assert talk.complaint == ""


def test_a_manager_that_is_gone_is_a_complaint(tmp_path: Path) -> None:
    talk = Notifier(str(tmp_path / "nobody"))
    talk.send("READY=1")
    assert talk.complaint == "systemd cannot be notified: No such file or directory"


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_whether_there_is_a_watchdog(environ: dict[str, str], seconds: float | None) -> None:
    assert notifier(environ, 7).watchdog_seconds == seconds
    assert environ == {}


async def test_the_watchdog_is_fed_while_we_live(
    manager: tuple[socket.socket, str], autojump_clock: MockClock
) -> None:
    sock, address = manager

    def fed() -> int:
        count = 0
        while True:
            try:
                assert sock.recv(100) == b"WATCHDOG=1"
            except BlockingIOError:
                return count
            count += 1

    failing, told, times = "", list[str](), set[float]()

    async def failure(seconds: float) -> str:
        times.add(seconds)
        return failing

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Notifier(address, 20.0).feed_watchdog, failure, told.append)
        await trio.sleep(21)
        assert (fed(), told) == (5, [])  # at 0, 5, 10, 15, 20
        failing = "no worker serves"
        await trio.sleep(20)
        assert (fed(), told) == (0, [failing])
        failing = ""
        await trio.sleep(10)
        assert (fed(), told) == (2, ["no worker serves", ""])
        nursery.cancel_scope.cancel()
    assert times == {5.0}


async def test_without_a_watchdog_nobody_is_fed() -> None:
    async def failure(_seconds: float) -> str:
        raise AssertionError

    await Notifier("/nowhere").feed_watchdog(failure, list[str]().append)


_CHILD = """
import os, sys
from agent.process.systemd import inherited_descriptors, sockets_among
environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": sys.argv[1], "LISTEN_FDNAMES": sys.argv[2]}
found = sockets_among(inherited_descriptors(environ, os.getpid()))
print([(one.name, one.sock.getsockname()[1]) for one in found], os.get_inheritable(3), environ)
"""


@pytest.mark.parametrize("names", ["public:extra", "only"])
def test_sockets_are_taken_over(names: str) -> None:
    count = names.count(":") + 1
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    # Descriptors from 3 on, as systemd passes them.
    shell = "exec " + " ".join(f"{3 + n}<&{one.fileno()}" for n, one in enumerate(sockets)) + '; exec "$@"'
    ports = [one.getsockname()[1] for one in sockets]
    child = subprocess.run(
        ["bash", "-c", shell, "bash", sys.executable, "-c", _CHILD, str(count), names],
        pass_fds=[one.fileno() for one in sockets],
        capture_output=True,
        text=True,
        check=True,
    )
    for one in sockets:
        one.close()
    taken = list(zip(names.split(":"), ports, strict=True))
    assert child.stdout.strip() == f"{taken} False {{}}"


def test_sockets_are_taken_over_from_the_first_descriptor_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process descriptor 3 is somebody else's: so from another number on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address, descriptor = sock.getsockname(), sock.detach()
    monkeypatch.setattr("agent.process.systemd.FIRST_FD", descriptor)
    environ = {"LISTEN_PID": "7", "LISTEN_FDS": "1", "OTHER": "x"}
    (found,) = sockets_among(inherited_descriptors(environ, 7))
    assert (found.name, found.sock.getsockname(), found.sock.getblocking()) == ("", address, False)
    assert environ == {"OTHER": "x"}
    found.sock.close()


@pytest.mark.parametrize(
    "environ", [{}, {"LISTEN_PID": "8", "LISTEN_FDS": "1"}, {"LISTEN_PID": "7", "LISTEN_FDS": "x"}]
)
def test_sockets_for_somebody_else_are_left_alone(environ: dict[str, str]) -> None:
    assert inherited_descriptors(environ, 7) == ()
    assert environ == {}


def test_a_descriptor_is_stored_and_removed_by_name(manager: tuple[socket.socket, str]) -> None:
    sock, address = manager
    talk = Notifier(address)
    assert talk.listening
    with socket.create_server(("127.0.0.1", 0)) as kept:
        talk.store("kept-x", kept.fileno())
        text, (descriptor,), _, _ = socket.recv_fds(sock, 200, 4)
        assert text == b"FDSTORE=1\nFDNAME=kept-x\nFDPOLL=0"
        with socket.socket(fileno=descriptor) as again:
            assert again.getsockname() == kept.getsockname()
    talk.unstore("kept-x")
    assert sock.recv(200) == b"FDSTOREREMOVE=1\nFDNAME=kept-x"


def test_a_file_among_the_descriptors_is_no_socket(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file, socket.create_server(("127.0.0.1", 0)) as sock:
        copy = os.dup(sock.fileno())
        (found,) = sockets_among([("file", file.fileno()), ("sock", copy)])
        assert (found.name, found.sock.fileno()) == ("sock", copy)
        found.sock.close()
