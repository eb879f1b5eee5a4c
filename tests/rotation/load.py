"""Load through both sidecars, in both directions: connections made anew at a rate, and ones that stay.

What is counted: a new connection that ends without its echo has failed; a lasting one that ends, or loses its
place in the sequence, is a broken stream. Who merely has to wait too long has lost patience: that says how
busy the machine is and is counted apart, as `late`. On a machine that cannot keep up no more connections are
made than `MOST_AT_ONCE` at a time, so that the load does not pile up; the rate then falls, and shows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

ANSWER_SECONDS = 30.0  # longer than a sidecar's own deadlines, so that it has named what went wrong before
MOST_AT_ONCE = 400  # new connections that have not been answered yet


@dataclass(kw_only=True)
class Load:
    """What was done and what went wrong."""

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
            while counted.lasting + len(counted.broken) + len(counted.late) < lasting:  # noqa: ASYNC110 - a count of other tasks
                await trio.sleep(0.05)
        began = trio.current_time()
        nursery.start_soon(_keep_making, counted, ports, per_second, stop, nursery)
        try:
            yield counted
        finally:
            counted.seconds = trio.current_time() - began
            stop.set()


async def _keep_making(
    counted: Load, ports: Sequence[int], per_second: float, stop: trio.Event, nursery: trio.Nursery
) -> None:
    began, number = trio.current_time(), 0
    room = trio.CapacityLimiter(MOST_AT_ONCE)
    while not stop.is_set():
        await room.acquire_on_behalf_of(number)
        nursery.start_soon(_make, counted, ports[number % len(ports)], room, number)
        number += 1
        await trio.sleep_until(began + number / per_second)


async def _make(counted: Load, port: int, room: trio.CapacityLimiter, number: int) -> None:
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
    room.release_on_behalf_of(number)
    if patience.cancelled_caught:
        counted.late.append(f"{port}: no answer within {ANSWER_SECONDS:g} s")
    elif what:
        counted.failed.append(f"{port}: {what}")
    else:
        counted.answered += 1
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
    except trio.TooSlowError:
        counted.late.append(f"{number} on {port} after {said} words: nothing within {ANSWER_SECONDS:g} s")
    except (OSError, trio.BrokenResourceError, AssertionError) as error:
        counted.broken.append(f"{number} on {port} after {said} words: {error!r}")
