"""Recorded answers of a real Consul against what the embedded datacenter serves, field by field.

A `Case` says which recording it is about, in which world and state it was made, and the request. `replay`
brings the state about, asks in process, and compares: the status; every header's name and value; the body
with the same keys, types and values. What cannot be the same twice is compared by its shape: UUIDs, times,
hashes, serial numbers, keys, certificates, indexes (positive, or 0 where 0 was recorded).

Each area has a file `test_recorded_*.py` with a list `CASES`; `tests/recordings/README.md` names it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from datacenter.http.frame import RawReply
from tests.datacenter.world import World

RECORDINGS = Path(__file__).parent.parent / "recordings"

Step = Callable[[World], Awaitable[None]]

# The server's business, not the frame's; or a moment.
_SERVER_HEADERS = {"date", "content-length", "transfer-encoding"}
_SHAPED_HEADERS = {"x-consul-index", "x-consul-contenthash", "age"}
_INDEXES = {"CreateIndex", "ModifyIndex", "Index"}
_UNORDERED = {"Roots"}  # sorted by ID, and IDs are other ones every time: docs/consul-api.md#roots
_NUMBERS = {"Vec", "Error", "Adjustment", "Height"}  # measured round trips
_SHAPES = (
    (re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "<uuid>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"), "<time>"),
    (re.compile(r"-----BEGIN ([A-Z ]+)-----[^-]*-----END [A-Z ]+-----"), r"<\1>"),
    (re.compile(r"\b(?:[0-9a-f]{2}:){8,}[0-9a-f]{2}\b"), "<fingerprint>"),
    (re.compile(r"dial tcp \S+:"), "dial tcp <address>:"),
)


async def nothing(world: World) -> None:
    """The state as the world was made."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One recording and how to bring its answer about."""

    recording: str
    world: Callable[[], World]
    # METHOD /path?query. `{index}` and `{hash}` are those of the same call without the query, other names
    # what an earlier step has noted in the world.
    request: str
    at: str = "dc1"
    token: str = ""
    body: object = None  # a str is sent as it is, anything else as JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    before: Step = nothing
    during: Step | None = None  # while the request blocks
    seconds: float | None = None  # how long it must take, jitter aside
    by_shape: frozenset[str] = frozenset()  # further keys that are compared by their type only
    without: frozenset[str] = frozenset()  # keys the datacenter does not serve; README.md says why
    unordered: frozenset[str] = frozenset()  # lists under these keys ("" for the whole answer) have no order

    def __str__(self) -> str:
        return self.recording


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A recording, parsed. Header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: str


def recorded(name: str) -> Recorded:
    """Read one recording."""
    head, _, body = (RECORDINGS / f"{name}.http").read_bytes().partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return Recorded(status=int(first.split()[1]), headers=headers, body=body.decode())


async def replay(case: Case) -> None:
    """Make the state, ask, compare. Runs under `autojump_clock`."""
    world = case.world()
    await case.before(world)
    request = await _filled_in(case, world)
    started = trio.current_time()
    answers: list[RawReply] = []
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            method, target = request.split(" ", 1)
            headers = {"x-consul-token": case.token, **case.headers} if case.token else case.headers
            answers.append(await world.site(case.at).call(method, target, case.body, headers))

        nursery.start_soon(ask)
        if case.during is not None:
            await wait_all_tasks_blocked()
            assert not answers, "it did not block"
            await case.during(world)
    elapsed = trio.current_time() - started
    if case.seconds is not None:
        assert case.seconds <= elapsed <= case.seconds * 17 / 16, elapsed
    compare(recorded(case.recording), answers[0], case)


def compare(expected: Recorded, served: RawReply, case: Case) -> None:
    """Assert that an answer is the recorded one."""
    text = served.body.decode()
    if served.status >= 400 or expected.status >= 400:
        assert (served.status, shape(text)) == (expected.status, shape(expected.body))
    assert _headers(served.headers) == _headers(expected.headers)
    if expected.headers.get("content-type", "").startswith("application/json"):
        assert _comparable(text, case) == _comparable(expected.body, case)
    else:
        assert shape(text) == shape(expected.body)


def shape(value: Any, by_shape: frozenset[str] = frozenset(), key: str = "") -> Any:
    """The value with everything that differs from run to run replaced by what it must look like."""
    if key in by_shape:
        return f"<{type(value).__name__}>"
    if isinstance(value, dict):
        return {name: shape(item, by_shape, name) for name, item in value.items()}
    if isinstance(value, list):
        if key in _NUMBERS:
            return [f"<{len(value)} numbers>"]
        shaped = [shape(item, by_shape, key) for item in value]
        return sorted(shaped, key=json.dumps) if key in _UNORDERED else shaped
    if key in _INDEXES and value:
        return "<index>"
    if key in _NUMBERS:
        return "<number>"
    if key == "ContentHash":
        return re.sub(r"[0-9a-f]{16}", "<hash>", value)
    if key == "SerialNumber":
        return (
            "<serial number>"
            if isinstance(value, int)
            else re.sub(r"[0-9a-f]{2}(:[0-9a-f]{2})*", "<serial>", value)
        )
    if isinstance(value, str):
        for pattern, replacement in _SHAPES:
            value = pattern.sub(replacement, value)
    return value


def _comparable(text: str, case: Case) -> Any:
    dropped = _drop(json.loads(text), case.without)
    return shape(_sorted(dropped, case.unordered), case.by_shape)


def _sorted(value: Any, unordered: frozenset[str], key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _sorted(item, unordered, name) for name, item in value.items()}
    if not isinstance(value, list):
        return value
    items = [_sorted(item, unordered, "[]") for item in value]
    return (
        sorted(items, key=lambda item: json.dumps(shape(item), sort_keys=True)) if key in unordered else items
    )


def _drop(value: Any, keys: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {name: _drop(item, keys) for name, item in value.items() if name not in keys}
    return [_drop(item, keys) for item in value] if isinstance(value, list) else value


def _headers(headers: Mapping[str, str]) -> dict[str, str]:
    plain = {name.lower(): value for name, value in headers.items() if name.lower() not in _SERVER_HEADERS}
    return {name: _header_shape(name, value) for name, value in plain.items()}


def _header_shape(name: str, value: str) -> str:
    if name == "x-consul-contenthash":
        return re.sub(r"^[0-9a-f]{16}$", "<hash>", value)
    if name in _SHAPED_HEADERS:
        return value if value == "1" else re.sub(r"^\d+$", "<number>", value)
    return value


async def _filled_in(case: Case, world: World) -> str:
    if "{" not in case.request:
        return case.request
    headers = {"x-consul-token": case.token} if case.token else {}
    method, target = case.request.split(" ", 1)
    now = await world.site(case.at).call(method, target.partition("?")[0], None, headers)
    names = {"index": "X-Consul-Index", "hash": "X-Consul-Contenthash"}
    found = {name: now.headers[header] for name, header in names.items() if header in now.headers}
    return case.request.format(**found, **world.noted)
