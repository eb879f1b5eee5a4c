"""The routes of the admin endpoint.

Those that change the agent (drain, rotate, log level) need a unix socket.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import trio

from agent.base.incremental import Incremental
from agent.base.prometheus import CONTENT_TYPE, written
from agent.config.options import LogLevel
from agent.control.credentials import CredentialsStatus, RenewalResult, RenewalSource
from agent.observe.agent import Agent
from agent.observe.explain import answer_inquiry
from agent.observe.metrics import families
from agent.observe.readiness import facts
from agent.observe.server import JSON, Reply, Route, text_reply
from agent.observe.status import document
from agent.overview.headline import headline


def routes(agent: Agent, drain: Callable[[str], None]) -> Sequence[Route]:
    """Return the routes of one agent."""

    async def live(_body: bytes) -> Reply:
        return text_reply(200, "live")

    async def ready(_body: bytes) -> Reply:
        now = facts(agent)
        return text_reply(503 if now.missing else 200, headline(now))

    async def metrics(_body: bytes) -> Reply:
        return Reply(
            content_type=CONTENT_TYPE, body=(await Incremental(written(await families(agent))).run()).encode()
        )

    async def status(_body: bytes) -> Reply:
        encoded = msgspec.json.encode(await document(agent))
        await trio.lowlevel.checkpoint()  # of hundreds of upstreams it is a megabyte, and each step takes ms
        written = msgspec.json.format(encoded, indent=1)
        await trio.lowlevel.checkpoint()
        return Reply(content_type=JSON, body=written)

    async def begin_drain(_body: bytes) -> Reply:
        drain("the admin endpoint")
        return text_reply(202, f"draining; connections have {agent.control.settings.drain_seconds:g} s")

    async def rotate(_body: bytes) -> Reply:
        return await _rotate(agent)

    async def log_level(body: bytes) -> Reply:
        return _set_level(agent, body)

    async def explain(body: bytes) -> Reply:
        return answer_inquiry(agent, body)

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


async def _rotate(agent: Agent) -> Reply:
    if agent.control.credentials is None or agent.control.snapshot.credentials.value is None:
        return text_reply(503, "there is no leaf to replace yet")
    result = await agent.control.credentials.refresh(RenewalSource.OPERATOR, reissue=True)
    current = agent.control.snapshot.credentials.value
    answer = {
        "result": result.value,
        "detail": _why(agent.control.credentials.status, result),
        "generation": current.generation,
        "serial": current.credentials.leaf.serial,
        "not_after": current.credentials.leaf.not_after,
    }
    status = 200 if result in (RenewalResult.NEW, RenewalResult.SAME) else 502
    return Reply(status=status, content_type=JSON, body=msgspec.json.encode(answer))


def _why(status: CredentialsStatus, result: RenewalResult) -> str:
    if result is RenewalResult.SAME:
        return "Consul hands out the leaf we have"
    if result is RenewalResult.FAILED:
        return status.refresh_failed
    return f"{status.rejected_reason}: {status.rejected_detail}" if status.rejected_reason else ""


def _set_level(agent: Agent, body: bytes) -> Reply:
    text = body.decode("utf-8", "replace").strip()
    try:
        level = LogLevel(text)
    except ValueError:
        return text_reply(400, f"log level {text[:40]!r}: the body is one of {', '.join(LogLevel)}")
    before = agent.log.level
    agent.log.take_level(level)
    agent.data.take_level(level)
    return text_reply(200, f"log level {level.value}, was {before.value}")
