"""Attempts at a backend, through a real inbound half and past it, and what the backend's app was told."""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import h11
import trio

from agent.http1.head import FieldNames
from agent.http1.request_body import BodyBroken
from agent.http1.request_reader import RequestReader
from agent.policy.authorize import authorize_request
from agent.relay.streams import StreamBroken
from certs.spiffe import ServiceId, TrustDomain
from tests.hostile.attempt import RULES, Attempt, forbidden
from tests.hostile.backends import Running, Seen
from tests.scenarios.http_front import Caller, front, policy

REPLY_SECONDS = 1.0  # some attempts announce more than they bring, and are not answered
JUDGED = policy(*RULES, default_allow=True)
WEB = ServiceId(trust_domain=TrustDomain("test.consul"), datacenter="dc1", service="web")


@dataclass(slots=True, kw_only=True)
class Result:
    """Of one backend. `statuses`: what callers were answered, 0 for nothing; `reached`: noted by the app."""

    statuses: Counter[int] = field(default_factory=Counter)
    reached: int = 0
    breaches: list[tuple[Attempt | None, Seen]] = field(default_factory=list)
    alive: bool = True


@cache
def decided(attempt: Attempt, names: FieldNames = FieldNames.PLAIN) -> str:
    """What becomes of it at the sidecar: `passed`, or the reason why not."""
    reader = RequestReader(
        host=b"db", identity=b"us", judged=lambda: JUDGED.intentions.header_names, names=names
    )
    head, end, came = attempt.raw.partition(b"\r\n\r\n")
    try:
        call = reader.read(head + end, came)
        call.body.start()
        while call.body.more:
            call.body.take(b"")
    except (BodyBroken, ValueError) as refusal:
        return str(refusal).partition(":")[0]
    verdict = authorize_request(JUDGED, WEB, call.request, None)
    return "passed" if verdict.allowed else verdict.reason.value


async def through(running: Running, made: Sequence[Attempt], *, underscores: bool = False) -> Result:
    """Each attempt as web's caller at db's sidecar, whose app is the backend."""
    result = Result()
    async with front(*RULES, default_allow=True, underscores=underscores) as f:
        f.mesh.app.address = running.address
        left = list(enumerate(made, 1))[::-1]
        while left:
            async with f.caller() as caller:
                while left and await _asked(caller, *left.pop(), result):
                    pass
    _look(running, made, result)
    return result


async def _asked(caller: Caller, number: int, attempt: Attempt, result: Result) -> bool:
    """Whether the connection can be used again."""
    status, again = 0, False
    with contextlib.suppress(StreamBroken, h11.RemoteProtocolError), trio.move_on_after(REPLY_SECONDS):
        await caller.send(attempt.numbered(number))
        reply = await caller.reply()
        if reply is not None:
            status = reply.status
            again = (
                reply.headers.get("connection") != "close"
                and attempt.raw.find(b"\r\n\r\n") == len(attempt.raw) - 4
            )
    result.statuses[status] += 1
    return again


def directly(running: Running, made: Sequence[Attempt]) -> Result:
    """Each attempt at the backend itself, without a sidecar."""
    result = Result()
    for number, attempt in enumerate(made, 1):
        with contextlib.suppress(OSError), running.connect() as sock:
            sock.settimeout(REPLY_SECONDS)
            sock.sendall(attempt.numbered(number))
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
    _look(running, made, result)
    return result


def _look(running: Running, made: Sequence[Attempt], result: Result) -> None:
    seen = running.seen()
    result.reached = len(seen)
    for one in seen:
        if forbidden(one):
            known = one.attempt.isdigit() and 0 < int(one.attempt) <= len(made)
            result.breaches.append((made[int(one.attempt) - 1] if known else None, one))
    result.alive = running.process.poll() is None and running.alive
    running.seen()
