"""A registration that vanishes while the agent serves, and comes back."""

from __future__ import annotations

import socket

import pytest
import trio

from agent.observe.readiness import missing
from agent.process.systemd import Inherited
from tests.support.agent_in_process import answers, free_port, life, live, public_life
from tests.support.agent_parts import PROXY, SERVICE, proxy_answer


async def test_a_registration_that_vanishes_leaves_everything_as_it_is(nursery: trio.Nursery) -> None:
    one = public_life(nursery)
    one.bench.well()

    async def act() -> None:
        one.bench.consul.answer(SERVICE, text=f"unknown service ID: {PROXY}", status=404)
        await one.until(lambda: "registration.gone" in one.bench.events())
        socket.create_connection(one.address()).close()
        assert missing(one.bench.agent) == []

    await live(one, act)


@pytest.mark.parametrize("handed", [False, True])
async def test_a_registration_that_stays_gone_closes_the_public_listener_until_it_is_back(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, handed: bool
) -> None:
    monkeypatch.setattr("agent.control.self_registration.GONE_GRACE", 0.0)
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    port = sock.getsockname()[1] if handed else free_port()
    inherited = [Inherited(name="public", sock=sock)] if handed else []
    one = life(nursery, *inherited)
    one.bench.well(port=port)

    async def act() -> None:
        one.bench.consul.answer(SERVICE, text=f"unknown service ID: {PROXY}", status=404)
        await one.until(lambda: "listening.ended" in one.bench.events())
        assert any("deregistered" in piece for piece in missing(one.bench.agent))
        assert answers(port) is handed, "systemd's own socket stays, and callers wait in it"
        one.bench.consul.answer(SERVICE, proxy_answer(port=port), content_hash="h1")
        await one.until(lambda: not missing(one.bench.agent))
        await one.until(lambda: answers(port))

    with sock:
        await live(one, act)
