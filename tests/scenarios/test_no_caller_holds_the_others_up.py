"""Bytes that are much work come in pieces of work: every other task has its turn between two of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import trio

from agent.http1.chunked import MOST, Chunks
from agent.http1.head import find_end
from agent.inbound.request_judge import RequestJudge
from tests.scenarios.http_app import AppSide, Reached, say_ok
from tests.scenarios.http_front import allow, deny, front, request

EVERYTHING = allow(PathPrefix="/")
CHUNKED = "Transfer-Encoding: chunked"
TINY = b"1\r\nx\r\n" * (5 * MOST) + b"0\r\n\r\n"


class Others:
    """How often another task had its turn, noted at each call of what is watched."""

    def __init__(self) -> None:
        self.turns = 0
        self.seen: list[int] = []

    async def run(self) -> None:
        """Take turns as long as there are any."""
        while True:
            self.turns += 1
            await trio.lowlevel.checkpoint()

    def watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its calls noted."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self.seen.append(self.turns)
            return function(*args, **kwargs)

        return call

    @property
    def always_between(self) -> bool:
        """Whether there was a turn between calls; trio may exchange the order of two."""
        return max(Counter(self.seen).values()) <= 2


async def test_each_of_many_requests_that_came_together_is_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    others = Others()
    monkeypatch.setattr(RequestJudge, "verdict", others.watched(RequestJudge.verdict))
    async with front(deny(PathPrefix="/")) as f, f.caller() as caller, trio.open_nursery() as nursery:
        nursery.start_soon(others.run)
        await caller.send(request("GET /") * 100)
        for _ in range(100):
            reply = await caller.reply()
            assert reply is not None
            assert reply.status == 403
        nursery.cancel_scope.cancel()
    assert len(others.seen) == 100
    assert others.always_between


@pytest.mark.parametrize("way", ["request", "answer"])
async def test_some_of_many_chunks_that_came_together_are_a_turn(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = Others()

    async def answer(side: AppSide, asked: Reached) -> None:
        if way == "request":
            await say_ok(side, asked)
        else:
            await side.say("HTTP/1.1 200 OK", CHUNKED, body=TINY)

    async with front(EVERYTHING, answer=answer) as f, f.caller() as caller, trio.open_nursery() as nursery:
        monkeypatch.setattr(Chunks, "take", others.watched(Chunks.take))
        nursery.start_soon(others.run)
        await caller.send(request("POST /", CHUNKED, body=TINY) if way == "request" else request("GET /"))
        reply = await caller.reply()
        assert reply is not None
        body = f.app.reached[0].body if way == "request" else reply.body
        assert body == b"x" * 5 * MOST
        nursery.cancel_scope.cancel()
    assert len(others.seen) > 5
    assert others.always_between


async def test_a_head_that_comes_in_many_records_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[tuple[int, int]] = []

    def watched(received: bytes | bytearray, seen: int = 0) -> int | None:
        searched.append((seen, len(received)))
        return find_end(received, seen)

    monkeypatch.setattr("agent.inbound.http_connection.find_end", watched)
    async with front(EVERYTHING) as f, f.caller() as caller:
        head = request("GET /", "X: " + "y" * 100)
        for byte in head:
            await caller.send(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()
        assert await caller.reply()
    assert searched == [(length, length + 1) for length in range(len(head))]
