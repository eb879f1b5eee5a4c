"""Hands the service to a new program without a refused caller or a reset: the end of the old one.

The new program is started with a socket pair, over which it gets the listening sockets and the state, and
says when it accepts callers beside us. Only then the service manager is told who the main process is
(sd_notify(3), `MAINPID=`), and we accept no more; our connections end in their own time. If it ends before
that, or cannot start, nothing has changed here.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec
import trio

import agent
from agent.base.undecodable import UNDECODABLE
from agent.process.systemd import Notifier
from agent.workers.channel import Channel, ChannelClosed

VARIABLE = "SIDECAR_UPGRADE_FD"  # the number of the new program's end of the socket pair
BEGIN_SECONDS = 30.0  # for the new program's interpreter to begin


class Descriptor(msgspec.Struct, frozen=True, tag=True):
    """A descriptor by its name with the service manager, in the same frame."""

    name: str


class Complete(msgspec.Struct, frozen=True, tag=True):
    """There are no more descriptors."""


class Accepting(msgspec.Struct, frozen=True, tag=True):
    """The new program accepts callers."""

    pid: int


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The new program cannot serve."""

    detail: str


class TakeOver(msgspec.Struct, frozen=True, tag=True):
    """The new program is the service's main process."""


class Drain(msgspec.Struct, frozen=True, tag=True):
    """The service stops: what is left of the old program's connections has so many seconds."""

    seconds: float


Word = Descriptor | Complete | Accepting | Failed | TakeOver | Drain
_DECODER: msgspec.json.Decoder[Word] = msgspec.json.Decoder(Word)


class Spawned(Protocol):
    """The process that starts the new program, and ends once that has begun."""

    async def wait(self) -> int: ...


Spawn = Callable[[socket.socket], Awaitable[Spawned]]
Descriptors = Callable[[], Sequence[tuple[str, int]]]


class UpgradeEvents(Protocol):
    """The events of an upgrade; must not block."""

    def upgrade_begun(self) -> None: ...
    def upgrade_failed(self, detail: str) -> None: ...
    def upgraded(self, pid: int) -> None: ...


async def tell(channel: Channel, word: Word, descriptors: Sequence[int] = ()) -> None:
    """Send a word. Raises ChannelClosed."""
    await channel.send(msgspec.json.encode(word), descriptors)


async def hear(channel: Channel) -> tuple[Word, list[int]]:
    """Return the next word and its descriptors. Raises ChannelClosed, also for what is no word."""
    frame, descriptors = await channel.receive()
    try:
        return _DECODER.decode(frame), descriptors
    except UNDECODABLE as error:
        raise ChannelClosed(f"no word of an upgrade: {error}") from error


def installation() -> tuple[int, ...]:
    """Return what differs between two installations of the program: the file of its version."""
    try:
        found = Path(agent.__file__).stat()
    except OSError:  # between two installations
        return ()
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


@dataclass(slots=True, kw_only=True)
class Upgrade:
    """Starts the new program. `descriptors` returns what it gets, by name."""

    notifier: Notifier
    spawn: Spawn
    descriptors: Descriptors
    events: UpgradeEvents
    complaint: str = ""  # why the last one has failed
    busy: bool = False
    before: tuple[int, ...] = field(default_factory=installation)

    @property
    def possible(self) -> bool:
        """Whether there is a service manager that can be told who its main process is."""
        return self.notifier.listening and not self.notifier.muted

    @property
    def due(self) -> bool:
        """Whether another program is installed than runs."""
        return self.possible and installation() != self.before

    async def hand_over(self) -> Channel | None:
        """Start the new program; return the channel to it once it is the main process, None if it failed."""
        self.busy, self.complaint = True, ""
        self.events.upgrade_begun()
        ours, theirs = socket.socketpair()
        channel = Channel(ours, most_descriptors=0)
        try:
            pid = await self._new_main(channel, theirs)
        except (OSError, ChannelClosed, _NotReady, trio.TooSlowError) as error:
            channel.close()
            self.complaint = f"the upgrade has failed, and the old program goes on: {_why(error)}"
            self.events.upgrade_failed(_why(error))
            return None
        except BaseException:  # the service stops meanwhile
            channel.close()
            raise
        finally:
            theirs.close()
            self.busy = False
        self.events.upgraded(pid)
        return channel

    async def _new_main(self, channel: Channel, theirs: socket.socket) -> int:
        process = await self.spawn(theirs)
        theirs.close()
        with trio.fail_after(BEGIN_SECONDS):
            code = await process.wait()
        if code:
            raise _NotReady(f"it ended with code {code}; the log has more")
        for name, descriptor in self.descriptors():
            await tell(channel, Descriptor(name), [descriptor])
        await tell(channel, Complete())
        word, _ = await hear(channel)
        if not isinstance(word, Accepting):
            raise _NotReady(word.detail if isinstance(word, Failed) else f"it said {type(word).__name__}")
        self.notifier.send(f"MAINPID={word.pid}")
        self.notifier.muted = True
        await tell(channel, TakeOver())
        return word.pid


class _NotReady(Exception):
    """The new program has not begun, or says that it cannot serve."""


def _why(error: Exception) -> str:
    if isinstance(error, trio.TooSlowError):
        return f"it has not begun within {BEGIN_SECONDS:g} s"
    if isinstance(error, ChannelClosed):
        return "it ended before it accepted callers; its log says why"
    return str(error)


async def limited(channel: Channel, hurry: trio.Event, pass_on: Callable[[float], Awaitable[None]]) -> None:
    """Set `hurry` when the service stops and the time is over that it leaves to us, and pass that on."""
    try:
        word, _ = await hear(channel)
    except ChannelClosed:  # the new program has ended: the service manager ends us with it
        return
    if isinstance(word, Drain):
        await pass_on(word.seconds)
        await trio.sleep(word.seconds)
        hurry.set()


def command() -> list[str]:
    """Return the command line of this process, by the installed script where there is one."""
    script = Path(sys.argv[0])
    if script.is_absolute() and script.name != "__main__.py" and os.access(script, os.X_OK):
        return list(sys.argv)
    return [sys.executable, *sys.orig_argv[1:]]


def spawner(environ: Mapping[str, str], notifier: Notifier) -> Spawn:
    """Return a function that starts the new program in the environment of this one."""

    async def spawn(end: socket.socket) -> Spawned:
        return await trio.lowlevel.open_process(
            command(),
            pass_fds=(end.fileno(),),
            env={**environ, **notifier.environment, VARIABLE: str(end.fileno())},
            stdin=subprocess.DEVNULL,
        )

    return spawn
