"""Files that are missing at a start are waited for, with the reason in STATUS, until the time is over."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
import trio.testing

from agent.awaited import LOOK_SECONDS, Awaited
from agent.base.exits import Exit, ExitCode, NotYet
from agent.process.systemd import Notifier


class Heard:
    """The service manager's end."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(path))
        self.sock.setblocking(False)

    def status(self) -> list[str]:
        """Return every STATUS so far; the other messages are left out."""
        found = []
        try:
            while True:
                found.append(self.sock.recv(4096).decode())
        except BlockingIOError:
            return [one for one in found if one.startswith("STATUS=")]


async def test_each_reason_is_said_once_and_what_is_made_is_returned(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    heard, log = Heard(tmp_path / "notify"), list[str]()
    reasons = ["no token", "no token", "no CA"]

    def make() -> str:
        if reasons:
            raise NotYet(reasons.pop(0))
        return "an agent"

    awaited = Awaited(Notifier(str(tmp_path / "notify")), log.append, 60.0, "no token")
    began = trio.current_time()
    assert await awaited.made(make) == "an agent"
    assert trio.current_time() - began == pytest.approx(4 * LOOK_SECONDS)
    assert awaited.waited == pytest.approx(4 * LOOK_SECONDS)
    assert log == ["no token", "no CA"]
    assert heard.status() == [
        "STATUS=starting · no token · gives up after 60 s",
        "STATUS=starting · no CA · gives up after 60 s",
    ]
    heard.sock.close()


async def test_a_signal_ends_the_wait_in_order() -> None:
    def make() -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        raise NotYet("no token")

    awaited = Awaited(Notifier(""), list[str]().append, 0.0, "no token")
    with pytest.raises(Exit) as caught, trio.fail_after(20):
        await awaited.made(make)
    assert (caught.value.code, caught.value.message) == (ExitCode.CLEAN, "SIGTERM while it waited: no token")


async def test_when_the_time_is_over_the_exit_is_one_that_is_tried_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    def make() -> None:
        raise NotYet("no token")

    with pytest.raises(Exit, match="not able to serve within 60 s: no token") as caught:
        await Awaited(Notifier(), lambda _: None, 60.0, "no token").made(make)
    assert caught.value.code is ExitCode.UNAVAILABLE
    assert trio.current_time() == pytest.approx(60.0)


async def test_without_a_limit_it_waits_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    def make() -> float:
        if trio.current_time() < 86400:
            raise NotYet("no token")
        return trio.current_time()

    assert await Awaited(Notifier(), lambda _: None, 0.0, "no token").made(make) >= 86400


async def test_any_other_mistake_ends_it_at_once(autojump_clock: trio.testing.MockClock) -> None:
    def make() -> None:
        raise Exit(ExitCode.CONFIGURATION, "an unknown key")

    with pytest.raises(Exit, match="an unknown key"):
        await Awaited(Notifier(), lambda _: None, 0.0, "no token").made(make)
