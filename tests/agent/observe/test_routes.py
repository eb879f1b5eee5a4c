"""What the admin endpoint answers, route by route."""

from __future__ import annotations

import json

import pytest
import trio

from agent.base.phase import Phase
from agent.config.options import LogLevel
from agent.observe.agent import Agent
from agent.observe.routes import routes
from agent.observe.server import Reply
from tests.support.agent_parts import agent_bench


async def answer(agent: Agent, method: str, path: str, drained: list[str] | None = None) -> Reply:
    heard: list[str] = [] if drained is None else drained
    (route,) = [one for one in routes(agent, heard.append) if (one.method, one.path) == (method, path)]
    return await route.answer(b"")


async def test_alive_is_always_yes(nursery: trio.Nursery) -> None:
    assert (await answer(agent_bench(nursery).agent, "GET", "/live")).status == 200


async def test_ready_says_what_is_missing(nursery: trio.Nursery) -> None:
    bench = agent_bench(nursery)
    reply = await answer(bench.agent, "GET", "/ready")
    assert (reply.status, reply.body) == (
        503,
        "starting · registration: no answer yet · gives up after 60 s\n".encode(),
    )
    bench.control.phase = Phase.DRAINING
    assert (await answer(bench.agent, "GET", "/ready")).body == b"draining\n"


async def test_metrics_and_status(nursery: trio.Nursery) -> None:
    bench = agent_bench(nursery)
    metrics = await answer(bench.agent, "GET", "/metrics")
    assert metrics.content_type.startswith("text/plain; version=0.0.4")
    assert b"sidecar_ready 0\n" in metrics.body
    status = await answer(bench.agent, "GET", "/status")
    assert status.content_type == "application/json"
    assert json.loads(status.body)["phase"] == "starting"


async def test_what_changes_the_agent_says_so(nursery: trio.Nursery) -> None:
    for route in routes(agent_bench(nursery).agent, print):
        assert route.changes is (route.method == "POST" and route.path != "/explain")


async def test_drain(nursery: trio.Nursery) -> None:
    bench = agent_bench(nursery)
    drained: list[str] = []
    reply = await answer(bench.agent, "POST", "/drain", drained)
    assert (reply.status, reply.body) == (202, b"draining; connections have 30 s\n")
    assert drained == ["the admin endpoint"]


async def set_level(agent: Agent, body: bytes) -> Reply:
    (route,) = [one for one in routes(agent, print) if one.path == "/log-level"]
    return await route.answer(body)


async def test_another_log_level(nursery: trio.Nursery) -> None:
    bench = agent_bench(nursery)
    reply = await set_level(bench.agent, b"error\n")
    assert (reply.status, reply.body) == (200, b"log level error, was debug\n")
    assert bench.agent.log.level is LogLevel.ERROR
    bench.agent.log.note("not to be seen")
    await set_level(bench.agent, b"warn")
    await set_level(bench.agent, b"warn")  # no news
    assert bench.log == [
        "[DEBUG] sidecar.process: log.level: before=debug now=error",
        "[WARN]  sidecar.process: log.level: before=error now=warn",
    ]


@pytest.mark.parametrize("body", [b"", b"loud", b"WARN", b"\xff"])
async def test_no_such_log_level(nursery: trio.Nursery, body: bytes) -> None:
    bench = agent_bench(nursery)
    reply = await set_level(bench.agent, body)
    assert reply.status == 400
    assert reply.body.endswith(b"the body is one of debug, info, warn, error\n")
    assert bench.agent.log.level is LogLevel.DEBUG
