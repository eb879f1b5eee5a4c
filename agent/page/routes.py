"""The routes of the page: the page, its samples, and the meanings of reasons. Each of them only reads."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Sequence

import msgspec
import trio

from agent.base.containment import Kept, Where
from agent.observe.agent import Agent
from agent.observe.routes import routes
from agent.observe.server import JSON, Reply, Route
from agent.page.samples import EVERY, Ring, keep

HTML = "text/html; charset=utf-8"
_HERE = trio.Path(__file__).parent
_INLINE = re.compile(rb"<(style|script)>(.*?)</\1>", re.DOTALL)


def every_route(agent: Agent, drain: Callable[[str], None], kept: Kept) -> Sequence[Route]:
    """Return the routes of the admin endpoint, and begin to take the samples of its page."""
    ring = Ring()
    kept.begin(Where.TASK, "samples", keep, agent, ring)
    return (*routes(agent, drain), *page_routes(agent, ring))


def page_routes(agent: Agent, ring: Ring) -> Sequence[Route]:
    """Return the routes of one agent's page."""

    async def page(_body: bytes) -> Reply:
        html = await (_HERE / "page.html").read_bytes()
        headers = (("Content-Security-Policy", policy(html)), *_STRICT)
        return Reply(content_type=HTML, body=html, headers=headers)

    async def samples(_body: bytes) -> Reply:
        await trio.lowlevel.checkpoint()
        now = agent.control.clock().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        body = {"now": now, "every_seconds": EVERY, **ring.columns()}
        return Reply(content_type=JSON, body=msgspec.json.encode(body))

    async def reasons(_body: bytes) -> Reply:
        return Reply(content_type=JSON, body=await (_HERE / "reasons.json").read_bytes())

    return (
        Route(method="GET", path="/", answer=page),
        Route(method="GET", path="/samples", answer=samples),
        Route(method="GET", path="/reasons", answer=reasons),
    )


_STRICT = (("Referrer-Policy", "no-referrer"), ("X-Frame-Options", "DENY"))


def policy(html: bytes) -> str:
    """Return the Content-Security-Policy (CSP Level 3) that allows a page its own style, script and agent."""
    sources: dict[str, list[str]] = {"style": [], "script": []}
    for kind, text in _INLINE.findall(html):
        digest = base64.b64encode(hashlib.sha256(text).digest()).decode()
        sources[kind.decode()].append(f"'sha256-{digest}'")
    rules = [f"{kind}-src {' '.join(hashes)}" for kind, hashes in sources.items()]
    return "; ".join(
        [
            "default-src 'none'",
            *rules,
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )
