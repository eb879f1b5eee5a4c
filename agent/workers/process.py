"""Starts worker processes, and waits for their end."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol

import trio

COMMAND = "worker"  # of `python -m agent`; not for people

_ROOT = Path(__file__).resolve().parents[2]  # where `agent` is imported from, whatever the working directory
_NOT_FOR_WORKERS = ("CONSUL_", "CONNECT_", "SIDECAR_", "NOTIFY_", "LISTEN_", "WATCHDOG_", "CREDENTIALS_")


class Process(Protocol):
    """The part of a process object that is used."""

    pid: int

    @property
    def returncode(self) -> int | None: ...
    async def wait(self) -> int: ...
    def kill(self) -> None: ...


Spawn = Callable[[socket.socket], Awaitable[Process]]


def spawner(environ: Mapping[str, str]) -> Spawn:
    """Return a function that starts a worker, without Consul's or systemd's variables."""
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
    """Wait for the process to end, and kill it if it does not; return its exit code."""
    # A process that has ended needs a moment to be reaped, and its exit code says how it ended.
    with trio.move_on_after(1.0 if patient else 0.1, shield=True):
        await process.wait()
    if process.returncode is None:
        process.kill()
    with trio.CancelScope(shield=True):
        await process.wait()
    return process.returncode or 0
