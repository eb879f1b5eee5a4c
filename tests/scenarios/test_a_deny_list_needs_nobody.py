"""A whole agent: its deny list changes while Consul is gone, and is in force within a second."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import trio

from agent.observe.status import document
from tests.certs.authority import TRUST_DOMAIN, Issuer
from tests.support.agent_in_process import App, Caller, live, public_life

SECOND = 1.0


def entry(service: str) -> str:
    return f"spiffe://{TRUST_DOMAIN}/ns/default/dc/*/svc/{service}\n"


async def test_live_and_new_connections(nursery: trio.Nursery, tmp_path: Path) -> None:
    denied, app = tmp_path / "denied", App()
    denied.write_text(entry("nobody"))
    nursery.start_soon(app.serve)
    life = public_life(nursery, service_addr=app.address, deny_file=str(denied))
    life.bench.control.deny_file.load()  # as `sidecar run` does before it begins
    root = life.bench.well(root=Issuer.root(now=datetime.now(UTC)))

    async def act() -> None:
        good, bad = Caller(root, "good"), Caller(root, "bad")
        for caller in (good, bad):
            await caller.connect(life.address())
            assert await caller.say(b"hello") == b"hello"
        life.bench.consul.down = True
        life.bench.consul.drop()
        began = trio.current_time()
        denied.write_text(entry("bad"))
        await life.until(life.bench.data.ledger.counters)
        assert trio.current_time() - began < SECOND
        assert await bad.say(b"more") == b""
        assert await good.say(b"more") == b"more"
        assert {reason for _, reason in life.bench.data.ledger.counters()} == {"deny_listed"}
        again = Caller(root, "bad")
        await again.connect(life.address())
        assert await again.say(b"more") == b""
        assert app.accepted == 2
        await unusable()
        assert await good.say(b"more") == b"more"
        for caller in (good, bad, again):
            caller.close()

    async def unusable() -> None:
        """The list in force stays, and everybody who looks is told."""
        denied.write_text("nonsense\n")
        await life.until(lambda: life.bench.control.deny_file.complaint)
        assert "deny_list.unusable" in life.bench.events()
        told = await document(life.bench.agent)
        assert "; the old list is in force" in str(told["complaints"])
        assert "'deny_entries': 1" in str(told["policy"])

    await live(life, act)
