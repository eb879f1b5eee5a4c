"""Bytes nobody would think of, against a real inbound half: no crash, nothing forbidden reaches the app."""

from __future__ import annotations

import contextlib

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.relay.streams import StreamBroken
from tests.scenarios.attempts import AGAINST_ALLOWANCES, AGAINST_DENIALS, DENIES, SMUGGLING
from tests.scenarios.http_front import front
from tests.scenarios.test_no_request_steps_around_the_rules import forbidden_by_denials

LINES = st.sampled_from(
    [
        *(b"GET /admin HTTP/1.1", b"POST /x HTTP/1.1", b"GET //admin/.. HTTP/1.1", b"DELETE /x HTTP/1.0"),
        *(b"Host: db", b"X-Role: root", b"X_Role: root", b"Connection: close", b"Connection: x-role"),
        *(
            b"Content-Length: 5",
            b"Content-Length: 36",
            b"Transfer-Encoding: chunked",
            b"Expect: 100-continue",
        ),
        *(
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"hello",
            b"0",
            b"5",
            b"24",
            b" folded",
            b": x",
            b"",
        ),
    ]
)
ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"", b"\0"])
grammar = st.lists(st.builds(bytes.__add__, LINES, ENDS), max_size=20).map(b"".join)
known = st.sampled_from([case.raw for case in (*AGAINST_DENIALS, *SMUGGLING, *AGAINST_ALLOWANCES)])
places = st.lists(st.tuples(st.integers(0, 1000), st.binary(max_size=3), st.integers(0, 3)), max_size=6)


def spoilt(raw: bytes, changes: list[tuple[int, bytes, int]]) -> bytes:
    """Some bytes put in, some taken out."""
    for place, instead, taken in changes:
        at = place % (len(raw) + 1)
        raw = raw[:at] + instead + raw[at + taken :]
    return raw


async def survives(parts: list[bytes]) -> None:
    async with front(*DENIES, default_allow=True) as f, f.caller() as caller:
        with trio.fail_after(20), contextlib.suppress(StreamBroken):
            for part in parts:
                await caller.send(part)
            await caller.stream.send_end()
            while await caller.stream.receive():
                pass
        with trio.fail_after(20):
            await f.mesh.db.ledger.empty()
        assert not any(map(forbidden_by_denials, f.app.reached))


bounded = settings(max_examples=120)


@bounded
@given(st.lists(grammar, max_size=3))
async def test_lines_in_any_order(parts: list[bytes]) -> None:
    await survives(parts)


@bounded
@given(st.lists(st.builds(spoilt, known, places), min_size=1, max_size=3))
async def test_crafted_requests_spoilt(parts: list[bytes]) -> None:
    await survives(parts)


@bounded
@given(st.lists(st.binary(max_size=200), max_size=3))
async def test_any_bytes(parts: list[bytes]) -> None:
    await survives(parts)


@bounded
@given(st.lists(known, min_size=2, max_size=4), st.booleans())
async def test_crafted_requests_one_behind_the_other(raw: list[bytes], at_once: bool) -> None:
    await survives([b"".join(raw)] if at_once else raw)
