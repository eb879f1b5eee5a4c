"""The agent as its users start it: a process with words, an environment, standard error and an exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import trio

SECONDS = 20.0  # for a process to do what it was asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def complaints(self) -> list[str]:
        """What was said to the person who started it; the log's lines start with a time."""
        return [line for line in self.err.splitlines() if line.startswith(("sidecar: ", "  "))]

    @property
    def last_words(self) -> str:
        """The detail of the event `exit`, which is the last line of the log."""
        line = self.err.splitlines()[-1]
        assert " [ERROR] sidecar.process: exit: code=" in line, self.err
        assert f"code={self.code} " in line, line
        detail: str = json.JSONDecoder().raw_decode(line.partition(" detail=")[2])[0]
        return detail


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment without any setting of the person who runs the tests."""
    ours = ("CONSUL_", "CONNECT_", "SIDECAR_", "NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}  # noqa: TID251 - a child needs one
    return {**kept, **(extra or {})}


def command(*words: str) -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "agent", *words]


async def sidecar(*words: str, environ: Mapping[str, str] | None = None) -> Ended:
    """Run a command to its end. No traceback is ever right."""
    with trio.fail_after(SECONDS):
        done = await trio.run_process(
            command(*words),
            env=environment(environ),
            stdin=subprocess.DEVNULL,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    ended = Ended(code=done.returncode, out=done.stdout.decode(), err=done.stderr.decode())
    assert "Traceback" not in ended.err, ended.err
    return ended


async def lines_until(stream: trio.abc.ReceiveStream, text: str) -> str:
    """Read until some text is there; everything read so far."""
    read = ""
    with trio.fail_after(SECONDS):
        while text not in read:
            chunk = await stream.receive_some()
            assert chunk, f"ended before {text!r}:\n{read}"
            read += chunk.decode()
    return read


def without_ports(words: Sequence[str]) -> list[str]:
    """Words for a run that must not meet another's admin endpoint."""
    return [*words, "-admin-bind", "127.0.0.1:0"]
