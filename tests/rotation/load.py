"""Load through both sidecars, in both directions: connections made anew at a rate, and ones that stay.

What is counted: a new connection that ends without its echo has failed; a lasting one that ends, or loses its
place in the sequence, is a broken stream. Who merely has to wait too long has lost patience: that says how
busy the machine is and is counted apart, as `late`. On a machine that cannot keep up no more connections are
made than tests.rotation.callers allows at a time, so that the load does not pile up; the rate then falls, and
shows.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

CALLERS = Path(__file__).with_name("callers.py")
ANSWER_SECONDS = 30.0  # longer than a sidecar's own deadlines, so that it has named what went wrong before
BEGIN_SECONDS = 60.0  # for every lasting connection to have had its first answer


@dataclass(kw_only=True)
class Load:
    """What was done and what went wrong: the counts as of late, the rest once the load is over."""

    made: int = 0
    answered: int = 0
    failed: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    lasting: int = 0
    broken: list[str] = field(default_factory=list)
    words: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """New connections per second."""
        return self.made / self.seconds if self.seconds else 0.0

    @property
    def faults(self) -> list[str]:
        """What went wrong, whatever it was; with `late`, which is nobody's fault but the machine's."""
        return [*self.failed, *self.broken, *self.late]


@asynccontextmanager
async def load(
    ports: Sequence[int],
    *,
    per_second: float,
    lasting: int,
    beat: float = 1.0,
    patience: float = ANSWER_SECONDS,
) -> AsyncIterator[Load]:
    """While the block runs; what is under way at its end is let finish.

    `beat` is the time between two words on a lasting connection, `patience` the longest wait for an answer,
    in seconds. The callers are a process, so that they take as little as they can of a machine on which the
    sidecars run too.
    """
    shape = {
        "ports": list(ports),
        "per_second": per_second,
        "lasting": lasting,
        "beat": beat,
        "patience": patience,
    }
    command = [sys.executable, str(CALLERS), json.dumps(shape)]
    counted, begun = Load(), trio.Event()
    async with trio.open_nursery() as nursery:
        pipe = subprocess.PIPE
        process = await trio.lowlevel.open_process(command, stdin=pipe, stdout=pipe)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            nursery.start_soon(_hear, process.stdout, counted, begun)
            with trio.fail_after(BEGIN_SECONDS):
                await begun.wait()
            yield counted
            await process.stdin.aclose()
            assert await process.wait() == 0, "the callers have crashed"
        finally:
            if process.returncode is None:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()


async def _hear(reports: trio.abc.ReceiveStream, counted: Load, begun: trio.Event) -> None:
    """Read the lines that the callers print, until they end."""
    rest = b""
    async for chunk in reports:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            vars(counted).update(json.loads(line))
            begun.set()
    begun.set()
