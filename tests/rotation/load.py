"""Load through both sidecars, in both directions: connections made anew at a rate, and ones that stay.

What is counted: a new connection that is not echoed in time is a failed handshake; a lasting one that breaks
or loses its place in the sequence is a broken stream.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

ANSWER_SECONDS = 10.0


@dataclass(kw_only=True)
class Load:
    """What was done and what went wrong."""

    made: int = 0
    failed: list[str] = field(default_factory=list)
    lasting: int = 0
    broken: list[str] = field(default_factory=list)
    words: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """New connections per second."""
        return self.made / self.seconds if self.seconds else 0.0


@asynccontextmanager
async def load(
    ports: Sequence[int], *, per_second: float, lasting: int, beat: float = 1.0
) -> AsyncIterator[Load]:
    """While the block runs; what is under way at its end is let finish.

    `beat` is the time between two words on a lasting connection, in seconds.
    """
    counted, stop = Load(), trio.Event()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(lasting):
            nursery.start_soon(_last, counted, ports[number % len(ports)], number, beat, stop)
        with trio.fail_after(60):
            while counted.lasting + len(counted.broken) < lasting:  # noqa: ASYNC110 - a count of other tasks
                await trio.sleep(0.05)
        began = trio.current_time()
        nursery.start_soon(_keep_making, counted, ports, per_second, stop, nursery)
        yield counted
        counted.seconds = trio.current_time() - began
        stop.set()


async def _keep_making(
    counted: Load, ports: Sequence[int], per_second: float, stop: trio.Event, nursery: trio.Nursery
) -> None:
    began, number = trio.current_time(), 0
    while not stop.is_set():
        nursery.start_soon(_make, counted, ports[number % len(ports)])
        number += 1
        await trio.sleep_until(began + number / per_second)


async def _make(counted: Load, port: int) -> None:
    counted.made += 1
    began, what = trio.current_time(), ""
    with trio.move_on_after(ANSWER_SECONDS) as patience:
        try:
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(b"new")
                if await stream.receive_some() != b"new":
                    what = "closed without an answer"
        except (OSError, trio.BrokenResourceError) as error:
            what = repr(error)
    if patience.cancelled_caught:
        what = f"no answer within {ANSWER_SECONDS:g} s"
    if what:
        counted.failed.append(f"{port}: {what}")
    counted.latencies.append(trio.current_time() - began)


async def _last(counted: Load, port: int, number: int, beat: float, stop: trio.Event) -> None:
    await trio.sleep(number * 0.01)  # not all in one instant
    said = 0
    try:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            while not stop.is_set():
                word = f"{number}.{said};".encode()
                with trio.fail_after(ANSWER_SECONDS):
                    await stream.send_all(word)
                    heard = b""
                    while len(heard) < len(word):
                        chunk = await stream.receive_some()
                        if not chunk:
                            raise trio.BrokenResourceError("it ended")  # noqa: TRY301 - one place counts
                        heard += chunk
                assert heard == word
                counted.lasting += said == 0
                counted.words += 1
                said += 1
                with trio.move_on_after(beat):
                    await stop.wait()
    except (OSError, trio.BrokenResourceError, trio.TooSlowError, AssertionError) as error:
        counted.broken.append(f"{number} on {port} after {said} words: {error!r}")
