"""Worker processes as such: how one is begun, and how it is known to be gone."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol

import trio

COMMAND = "worker"  # of `python -m agent`; not for people

_ROOT = Path(__file__).resolve().parents[2]  # where `agent` is found, wherever we were started
_NOT_FOR_WORKERS = ("CONSUL_", "CONNECT_", "SIDECAR_", "NOTIFY_", "LISTEN_", "WATCHDOG_", "CREDENTIALS_")


class Process(Protocol):
    """What is needed of one."""

    pid: int

    @property
    def returncode(self) -> int | None: ...
    async def wait(self) -> int: ...
    def kill(self) -> None: ...


Spawn = Callable[[socket.socket], Awaitable[Process]]


def spawner(environ: Mapping[str, str]) -> Spawn:
    """Begins workers of the same interpreter, with nothing of Consul's or systemd's in their environment."""
    kept = {name: value for name, value in environ.items() if not name.startswith(_NOT_FOR_WORKERS)}

    async def spawn(end: socket.socket) -> Process:
        return await trio.lowlevel.open_process(
            [sys.executable, "-m", "agent", COMMAND, str(end.fileno())],
            pass_fds=(end.fileno(),),
            env=kept,
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
        )

    return spawn


async def reap(process: Process, *, patient: bool) -> int:
    """Its exit code. One that was told to end has a moment for it."""
    # One that is gone already ends in a moment, and how it did is worth knowing.
    with trio.move_on_after(1.0 if patient else 0.1, shield=True):
        await process.wait()
    if process.returncode is None:
        process.kill()
    with trio.CancelScope(shield=True):
        await process.wait()
    return process.returncode or 0
