"""What the admin endpoint answers; what changes the agent (drain, rotate, log level) by unix socket only."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

import msgspec

from agent.base.prometheus import CONTENT_TYPE, Family, text
from agent.config.options import LogLevel
from agent.control.credentials import Asker, Refresh, RotationStatus
from agent.observe.explain import answer_inquiry
from agent.observe.metrics import control_plane, families
from agent.observe.readiness import missing
from agent.observe.server import JSON, Reply, Route, text_reply
from agent.observe.status import document
from agent.parts import Parts


def routes(parts: Parts, drain: Callable[[str], None]) -> Sequence[Route]:
    """The routes of one agent."""

    async def live(_body: bytes) -> Reply:
        return text_reply(200, "live")

    async def ready(_body: bytes) -> Reply:
        pieces = missing(parts)
        return text_reply(503, "\n".join(pieces)) if pieces else text_reply(200, "ready")

    async def metrics(_body: bytes) -> Reply:
        return Reply(content_type=CONTENT_TYPE, body=text(await _families(parts)).encode())

    async def status(_body: bytes) -> Reply:
        told = msgspec.json.encode(await _document(parts))
        return Reply(content_type=JSON, body=msgspec.json.format(told, indent=1))

    async def begin_drain(_body: bytes) -> Reply:
        drain("the admin endpoint")
        return text_reply(202, f"draining; connections have {parts.settings.drain_seconds:g} s")

    async def rotate(_body: bytes) -> Reply:
        return await _rotate(parts)

    async def log_level(body: bytes) -> Reply:
        return _set_level(parts, body)

    async def explain(body: bytes) -> Reply:
        return answer_inquiry(parts, body)

    return (
        Route(method="GET", path="/live", answer=live),
        Route(method="GET", path="/ready", answer=ready),
        Route(method="GET", path="/metrics", answer=metrics),
        Route(method="GET", path="/status", answer=status),
        Route(method="POST", path="/explain", answer=explain),
        Route(method="POST", path="/drain", answer=begin_drain, changes=True),
        Route(method="POST", path="/rotate", answer=rotate, changes=True),
        Route(method="POST", path="/log-level", answer=log_level, changes=True),
    )


async def _families(parts: Parts) -> Iterable[Family]:
    if parts.crew is None:
        return families(parts)
    return itertools.chain(control_plane(parts), await parts.crew.families())


async def _document(parts: Parts) -> dict[str, object]:
    told = document(parts)
    return told if parts.crew is None else await parts.crew.laid_into(told)


async def _rotate(parts: Parts) -> Reply:
    if parts.rotation is None or parts.contexts.value is None:
        return text_reply(503, "there is no leaf to replace yet")
    result = await parts.rotation.refresh(Asker.OPERATOR, reissue=True)
    current = parts.contexts.value
    told = {
        "result": result.value,
        "detail": _why(parts.rotation.status, result),
        "generation": current.generation,
        "serial": current.credentials.leaf.serial,
        "not_after": current.credentials.leaf.not_after,
    }
    status = 200 if result in (Refresh.NEW, Refresh.SAME) else 502
    return Reply(status=status, content_type=JSON, body=msgspec.json.encode(told))


def _why(status: RotationStatus, result: Refresh) -> str:
    if result is Refresh.SAME:
        return "Consul hands out the leaf we have"
    if result is Refresh.FAILED:
        return status.refresh_failed
    return f"{status.rejected_reason}: {status.rejected_detail}" if status.rejected_reason else ""


def _set_level(parts: Parts, body: bytes) -> Reply:
    text = body.decode("utf-8", "replace").strip()
    try:
        level = LogLevel(text)
    except ValueError:
        return text_reply(400, f"log level {text[:40]!r}: the body is one of {', '.join(LogLevel)}")
    before = parts.journal.level
    parts.journal.take_level(level)
    if parts.crew is not None:
        parts.crew.take_level(level)
    return text_reply(200, f"log level {level.value}, was {before.value}")
