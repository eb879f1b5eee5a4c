"""A Consul that answers every question with the bytes it was given, for targets that read its answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NoReturn, TypeVar

from agent.consul.api import Consul
from agent.consul.http import Client, Request, Response
from agent.consul.token import TokenSource
from tests.recorded import RECORDINGS

T = TypeVar("T")

HEADERS = {"x-consul-index": "7", "x-consul-default-acl-policy": "allow"}


class _Scripted(Client):
    """No connection at all."""

    def __init__(self, body: bytes, headers: Mapping[str, str]) -> None:
        super().__init__(_dial, host="consul")
        self._answer = Response(status=200, headers=headers, body=body)

    async def exchange(self, request: Request, seconds: float) -> Response:
        return self._answer


def asked(
    call: Callable[[Consul], Coroutine[Any, Any, T]], body: bytes, headers: Mapping[str, str] = HEADERS
) -> T:
    """What comes of one question, answered with these bytes; raise ConsulError."""
    consul = Consul(_Scripted(body, headers), TokenSource(None, None))
    consul.clock = lambda: 0.0  # trio's runs in trio alone
    coroutine = call(consul)
    try:
        coroutine.send(None)
    except StopIteration as end:
        answer: T = end.value
        return answer
    raise AssertionError("a scripted answer needs no waiting")


def recorded(*patterns: str) -> list[bytes]:
    """The bodies of recordings, as they came."""
    paths = sorted({path for pattern in patterns for path in RECORDINGS.glob(f"{pattern}.http")})
    return [path.read_bytes().split(b"\r\n\r\n", 1)[1] for path in paths]


def words_of(*documents: bytes) -> tuple[str, ...]:
    """Every key and short text that JSON documents hold, those that are none left out."""
    found: set[str] = set()
    for document in documents:
        try:
            _gather(json.loads(document), found)
        except (ValueError, RecursionError):
            continue
    return tuple(sorted(found)) or ("",)


def _gather(value: object, found: set[str]) -> None:
    if isinstance(value, dict):
        found.update(value)
        for inner in value.values():
            _gather(inner, found)
    elif isinstance(value, list):
        for inner in value:
            _gather(inner, found)
    elif isinstance(value, str) and len(value) <= 64:
        found.add(value)


async def _dial() -> NoReturn:
    raise AssertionError("nothing is dialled")
