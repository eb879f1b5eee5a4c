"""The end of the old program: it hands over to one that accepts callers, and goes on without one."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

import agent
from agent.handover.predecessor import Predecessor
from agent.handover.upgrade import (
    Accepting,
    Complete,
    Drain,
    Failed,
    Upgrade,
    command,
    hear,
    installation,
    limited,
    spawner,
    tell,
)
from agent.process.systemd import Notifier
from agent.workers.channel import Channel, ChannelClosed


class Heard:
    """agent.handover.upgrade.UpgradeEvents, written down."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def upgrade_begun(self) -> None:
        self.told.append("begun")

    def upgrade_failed(self, detail: str) -> None:
        self.told.append(f"failed {detail}")

    def upgraded(self, pid: int) -> None:
        self.told.append(f"upgraded {pid}")


class Begun:
    """The process that has started the new program."""

    def __init__(self, code: int = 0) -> None:
        self.code = code

    async def wait(self) -> int:
        return self.code


@pytest.fixture
def manager(tmp_path: Path) -> tuple[socket.socket, Notifier]:
    """A service manager, and who speaks to it."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(tmp_path / "notify"))
    sock.setblocking(False)
    return sock, Notifier(str(tmp_path / "notify"), 30.0)


def link_of(descriptor: int) -> str:
    """Return what two descriptors of one socket have in common."""
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


async def handed_over(
    notifier: Notifier,
    new: Callable[[Channel], Awaitable[None]],
    code: int = 0,
    descriptors: tuple[tuple[str, int], ...] = (),
) -> tuple[Channel | None, Upgrade, Heard]:
    """Upgrade to a program that does `new` with its end of the channel."""
    heard = Heard()
    async with trio.open_nursery() as nursery:

        async def spawn(end: socket.socket) -> Begun:
            nursery.start_soon(new, Channel(end.dup()))
            return Begun(code)

        one = Upgrade(notifier=notifier, spawn=spawn, descriptors=lambda: descriptors, events=heard)
        channel = await one.hand_over()
    return channel, one, heard


async def test_the_main_process_moves_once_the_new_program_accepts_callers(
    manager: tuple[socket.socket, Notifier],
) -> None:
    sock, notifier = manager
    got: list[tuple[str, str]] = []

    async def new(channel: Channel) -> None:
        one = Predecessor(channel)
        await one.receive()
        got.extend((name, link_of(fd)) for name, fd in one.descriptors)
        with pytest.raises(BlockingIOError):
            sock.recv(100)  # not yet
        await one.take_over()
        channel.close()
        for _, fd in one.descriptors:
            os.close(fd)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        link = link_of(listener.fileno())
        channel, one, heard = await handed_over(notifier, new, descriptors=(("kept-x", listener.fileno()),))
    assert channel is not None
    assert sock.recv(100) == f"MAINPID={os.getpid()}".encode()
    assert (got, heard.told) == ([("kept-x", link)], ["begun", f"upgraded {os.getpid()}"])
    assert (one.possible, one.complaint, one.busy) == (False, "", False)
    notifier.send("STATUS=late")
    with pytest.raises(BlockingIOError):
        sock.recv(100)  # the new one speaks now
    channel.close()
    sock.close()


async def says_why(channel: Channel) -> None:
    """Fail as a program with wrong settings does."""
    one = Predecessor(channel)
    await one.receive()
    await one.fail("drain_seconds: no number")
    channel.close()


async def ends(channel: Channel) -> None:
    """End without a word."""
    await trio.lowlevel.checkpoint()
    channel.close()


async def babbles(channel: Channel) -> None:
    """Say what is no word of an upgrade."""
    await Predecessor(channel).receive()
    await channel.send(b"hello")
    await trio.sleep(0.1)
    channel.close()


async def repeats(channel: Channel) -> None:
    """Say a word that is not its own."""
    await Predecessor(channel).receive()
    await tell(channel, Complete())
    channel.close()


@pytest.mark.parametrize(
    ("new", "code", "why"),
    [
        (says_why, 0, "drain_seconds: no number"),
        (ends, 0, "it ended before it accepted callers; its log says why"),
        (ends, 78, "it ended with code 78; the log has more"),
        (babbles, 0, "it ended before it accepted callers; its log says why"),
        (repeats, 0, "it said Complete"),
    ],
)
async def test_a_program_that_cannot_serve_changes_nothing(
    manager: tuple[socket.socket, Notifier],
    new: Callable[[Channel], Awaitable[None]],
    code: int,
    why: str,
) -> None:
    sock, notifier = manager
    channel, one, heard = await handed_over(notifier, new, code)
    assert channel is None
    assert one.complaint == f"the upgrade has failed, and the old program goes on: {why}"
    assert heard.told == ["begun", f"failed {why}"]
    assert one.possible
    with pytest.raises(BlockingIOError):
        sock.recv(100)
    sock.close()


async def test_a_program_that_cannot_be_started_changes_nothing(
    manager: tuple[socket.socket, Notifier], autojump_clock: trio.testing.MockClock
) -> None:
    class Slow:
        async def wait(self) -> int:
            await trio.sleep_forever()
            raise AssertionError

    async def denied(_end: socket.socket) -> Begun:
        raise PermissionError(13, "Permission denied")

    async def slow(_end: socket.socket) -> Slow:
        return Slow()

    for spawn, why in ((denied, "[Errno 13] Permission denied"), (slow, "it has not begun within 30 s")):
        heard = Heard()
        one = Upgrade(notifier=manager[1], spawn=spawn, descriptors=list, events=heard)
        assert await one.hand_over() is None
        assert heard.told[1] == f"failed {why}"
    manager[0].close()


async def test_what_is_left_ends_in_its_time_when_the_service_stops(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, theirs = (Channel(end) for end in socket.socketpair())
    hurry, passed = trio.Event(), list[float]()

    async def pass_on(seconds: float) -> None:
        passed.append(seconds)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(limited, ours, hurry, pass_on)
        await Predecessor(theirs).drain(7)
        with trio.move_on_after(6.9):
            await hurry.wait()
        assert not hurry.is_set()
        await hurry.wait()
    assert passed == [7]
    theirs.close()
    await limited(ours, trio.Event(), pass_on)  # the new program has ended
    ours.close()


def test_another_installation_is_noticed(
    manager: tuple[socket.socket, Notifier], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "agent.py"
    program.write_text("1")
    monkeypatch.setattr(agent, "__file__", str(program))
    one = Upgrade(notifier=manager[1], spawn=spawner({}, manager[1]), descriptors=list, events=Heard())
    assert not one.due
    other = tmp_path / "other.py"
    other.write_text("2")
    other.replace(program)
    assert [one.due] == [True]
    program.unlink()
    assert installation() == ()
    manager[0].close()


def test_the_new_program_is_the_installed_script_and_else_the_same_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "sidecar"
    script.write_text("#!/bin/sh\n")
    monkeypatch.setattr(sys, "argv", [str(script), "run"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "agent", "run"])
    assert command() == [sys.executable, "-m", "agent", "run"]
    script.chmod(0o755)
    assert command() == [str(script), "run"]


async def test_the_new_program_gets_the_managers_variables_and_its_end(
    manager: tuple[socket.socket, Notifier], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, said = tmp_path / "sidecar", tmp_path / "said"
    script.write_text(f"#!/bin/bash\nenv >{said}\necho x >&$SIDECAR_UPGRADE_FD\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(script), "run"])
    ours, theirs = socket.socketpair()
    process = await spawner({"PATH": "/usr/bin:/bin", "X": "y"}, manager[1])(theirs)
    assert await process.wait() == 0
    theirs.close()
    assert ours.recv(10) == b"x\n"
    lines = said.read_text().splitlines()
    assert f"NOTIFY_SOCKET={tmp_path}/notify" in lines
    assert {"WATCHDOG_USEC=30000000", "X=y"} <= set(lines)
    ours.close()
    manager[0].close()


async def test_words_cross_and_what_is_none_ends_the_channel() -> None:
    ours, theirs = (Channel(end) for end in socket.socketpair())
    for word in (Accepting(7), Failed("x"), Drain(1.5)):
        await tell(ours, word)
        assert await hear(theirs) == (word, [])
    await ours.send(b"{}")
    with pytest.raises(ChannelClosed):
        await hear(theirs)
    ours.close()
    theirs.close()
