"""How the story checks the mesh: by waiting for conditions, and with requests that never stop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from datacenter.demo.http import Answer, Unanswered, get


class StepFailed(Exception):
    """A step's promise was not kept; the text says what was seen instead."""


async def until(what: str, seconds: float, look: Callable[[], Awaitable[bool]]) -> None:
    """Check again and again until the condition holds.

    Raises:
        StepFailed: it did not hold within `seconds`.
    """
    last = ""
    with trio.move_on_after(seconds):
        while True:
            try:
                if await look():
                    return
            except (Unanswered, ValueError, KeyError) as error:
                last = f" ({error})"
            await trio.sleep(0.05)
    raise StepFailed(f"not within {seconds:.0f} s: {what}{last}")


async def answered(url: str) -> Answer | None:
    """Return the answer of a GET, or None if there was none."""
    try:
        return await get(url)
    except Unanswered:
        return None


@dataclass(slots=True)
class Tally:
    """Requests sent and failed so far."""

    asked: int = 0
    failed: int = 0

    def note(self, held: bool) -> None:
        """Count one request."""
        self.asked += 1
        self.failed += not held

    def reaches(self, asked: int) -> Callable[[], Awaitable[bool]]:
        """Return a condition for `until`: that so many requests were sent."""

        async def enough() -> bool:
            return self.asked >= asked

        return enough


async def ask_forever(url: str, tally: Tally) -> None:
    """Send one request after another, each on a connection of its own."""
    while True:
        answer = await answered(url)
        tally.note(answer is not None and answer.status == 200)


async def hold_open(url: str, tally: Tally) -> None:
    """Send one request after another on one connection; if it breaks, count a failure and end."""
    async with await connect(url) as stream:
        while await ask_on(stream) is not None:
            tally.note(True)
            await trio.sleep(0.01)
    tally.note(False)


async def connect(url: str) -> trio.SocketStream:
    """A TCP connection to the host and port of a URL."""
    host, port = url.removeprefix("http://").split(":")
    return await trio.open_tcp_stream(host, int(port))


async def ask_on(stream: trio.SocketStream) -> str | None:
    """Send one request to the origin on an open connection; return the line it answers, None without one."""
    answer = b""
    try:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: db\r\n\r\n")
        while not (line := answer.partition(b"\r\n\r\n")[2]).endswith(b"\n"):
            part = await stream.receive_some(4096)
            if not part:
                return None
            answer += part
    except trio.BrokenResourceError:
        return None
    return line.decode() if answer.startswith(b"HTTP/1.1 200 ") else None
