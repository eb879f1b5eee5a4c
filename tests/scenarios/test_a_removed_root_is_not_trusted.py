"""Consul removes the root our leaf hangs on, and has no new leaf for us: seen from outside, both ways."""

from __future__ import annotations

import pytest
import trio
from OpenSSL import SSL

from agent.base.prometheus import text
from agent.connections.records import Direction
from agent.control.credentials_report import families
from agent.observe.readiness import missing
from agent.observe.status import document
from tests.certs.authority import Issuer, roots_answer
from tests.support.agent_in_process import App, Caller, Life, free_port, live, public_life, upstream
from tests.support.agent_parts import LEAF, ROOTS
from tests.support.fake_consul import Scripted

UNTRUSTED = "credentials: credentials_untrusted: our certificate is untrusted_chain: "


@pytest.mark.parametrize("grace", ["0", "never"])  # of expired peers: never, until their root has gone
async def test_peers_are_cut_at_once_and_we_say_that_we_cannot_serve(
    nursery: trio.Nursery, grace: str
) -> None:
    app, port = App(), free_port()
    nursery.start_soon(app.serve)
    one = public_life(nursery, service_addr=app.address, expired_peer_grace=grace)
    removed, other = one.bench.well(upstream("db", port)), Issuer.root(name="pri-other")
    caller = Caller(removed)

    async def act() -> None:
        await caller.connect(one.address())
        assert await caller.say(b"hello") == b"hello"
        one.bench.consul.say(LEAF, Scripted(hang=True))
        one.bench.consul.answer(ROOTS, roots_answer(other), index=50)
        with trio.fail_after(1):
            await one.bench.data.ledger.empty()
        assert await caller.say(b"cut") == b""
        caller.close()
        await _refuses_everybody(one, removed, other, port)
        await _says_so(one)
        one.bench.consul.replace(LEAF)
        one.bench.consul.answer(LEAF, other.leaf(serial=0x0E).answer(), index=51)
        await one.until(lambda: not missing(one.bench.agent))
        back = Caller(other)
        await back.connect(one.address())
        assert await back.say(b"hello") == b"hello"
        back.close()

    await live(one, act)
    assert app.accepted == 2


async def _refuses_everybody(one: Life, removed: Issuer, other: Issuer, port: int) -> None:
    for root in (removed, other):
        with pytest.raises((SSL.Error, OSError)):
            await Caller(root).connect(one.address())
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
    counters = one.bench.data.ledger.counters()
    assert counters[Direction.INBOUND, "root_removed"] == 1
    assert counters[Direction.INBOUND, "credentials_untrusted"] == 2
    assert counters[Direction.OUTBOUND, "credentials_untrusted"] == 1


async def _says_so(one: Life) -> None:
    (piece,) = missing(one.bench.agent)
    assert piece.startswith(UNTRUSTED)
    assert UNTRUSTED.removeprefix("credentials: ") in str((await document(one.bench.agent))["credentials"])
    assert "sidecar_credentials_unservable 1" in text(families(one.bench.control))
    assert one.bench.events().count("credentials.unservable") == 1
