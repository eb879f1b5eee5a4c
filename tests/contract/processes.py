"""Processes the suite starts, and ends by their id: datacenters and sidecars."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class Process:
    """A program that can be started, killed and started again; all it writes goes to one file.

    `command`: of the next start.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.log = log
        self.command = list(command)
        self._running = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def restart(self) -> None:
        """Start it anew, once it has ended."""
        assert self._running.poll() is not None
        self._running = self._start()

    def kill(self) -> None:
        """SIGKILL: no last word, no chance to leave anything in order."""
        self._running.kill()
        self._running.wait()

    def terminate(self) -> None:
        """SIGTERM; its end is not waited for."""
        self._running.terminate()

    def send(self, number: int) -> None:
        """Send a signal."""
        self._running.send_signal(number)

    def end(self) -> None:
        """SIGTERM, and SIGKILL for one that does not heed it."""
        self.terminate()
        try:
            self._running.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()

    def ends(self) -> int:
        """Wait for its end, which a signal has asked for; return the exit code."""
        return self._running.wait(60)

    def must_live(self) -> None:
        """Fail with the end of its log when it has ended."""
        code = self._running.poll()
        assert code is None, f"ended with {code}:\n{self.last_words()}"

    def last_words(self) -> str:
        """The end of what it has written."""
        return self.log.read_text()[-3000:]


@contextmanager
def process(command: Sequence[str], log: Path) -> Iterator[Process]:
    """Running for as long as the block."""
    started = Process(command, log)
    try:
        yield started
    finally:
        started.end()
