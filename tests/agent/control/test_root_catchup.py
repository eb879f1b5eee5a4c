"""A leaf that is here before its root waits for it, and never for long. Virtual time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import pytest
import trio
from trio.testing import MockClock

from agent.base.latest import Latest
from agent.consul.api import Answer, Json
from agent.consul.errors import ConsulError, ConsulReason
from agent.control.root_catchup import CatchUp, RootsFirst
from certs.bundle import TrustBundle, parse_roots
from certs.leaf import Leaf, parse_leaf
from tests.certs.authority import Issuer, Minted, roots_answer
from tests.rotation.handshakes import shake
from tests.support.credentials_keeper import LEAF, ROOTS, START, Bench, begin
from tests.support.fake_consul import Scripted
from tests.support.socket_pairs import bundle_of, contexts_of


def bridged(bench: Bench) -> tuple[Issuer, Minted]:
    """A new root, and a leaf under it which reaches the former root through a cross-signature."""
    new = Issuer.root(now=START, name="new root")
    return new, new.with_chain(bench.root.cross_sign(new)).leaf(serial=0x0E)


async def behind(nursery: trio.Nursery) -> Bench:
    """In force, with a roots watch that has stopped: its question hangs."""
    bench = Bench(nursery)
    bench.roots(bench.root)
    bench.leaf(bench.root.leaf())
    bench.consul.hang_blocking(ROOTS)
    await begin(bench, nursery)
    return bench


async def test_the_roots_are_fetched_and_published_before_the_leaf(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = await behind(nursery)
    new, leaf = bridged(bench)
    bench.roots(new, bench.root)
    bench.leaf(leaf)
    await trio.sleep(0.1)
    assert bench.heard.told == ["published 1 0d", "published 2 0d", "published 3 0e"]
    assert "index" not in bench.consul.questions(ROOTS)[-1].query
    # A peer under the new root that shows no cross-signature is let in from the first handshake on.
    peer = contexts_of(new.leaf(service="db", datacenter="dc2"), new, bench.root)
    shake(peer, bench.current)
    shake(bench.current, peer)


async def test_a_roots_read_that_hangs_holds_a_proven_leaf_for_two_seconds(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = await behind(nursery)
    _, leaf = bridged(bench)
    bench.consul.say(ROOTS, Scripted(hang=True))
    bench.leaf(leaf)
    await trio.sleep(1.99)
    assert bench.serial == "0d"
    await trio.sleep(0.02)
    assert bench.serial == "0e"
    assert bench.heard.told == ["published 1 0d", "roots late", "published 2 0e"]
    assert bench.rotation.roots_first.results == {CatchUp.LATE: 1}


async def test_while_no_leaf_is_in_force_it_is_not_held_as_long(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(nursery)
    bench.roots(bench.root)
    bench.leaf(bench.root.leaf(not_after=START + timedelta(seconds=60)))
    bench.consul.hang_blocking(ROOTS)
    await begin(bench, nursery)
    bench.consul.replace(LEAF)
    bench.consul.answer(LEAF, text="No cluster leader", status=500)
    await trio.sleep(70)
    _, leaf = bridged(bench)
    bench.consul.say(ROOTS, Scripted(hang=True))
    bench.consul.replace(LEAF)
    bench.leaf(leaf)
    with trio.fail_after(2):
        await bench.contexts.newer(bench.contexts.version)
    assert bench.serial == "0e"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"value": {"Roots": []}}, "roots failed"),
        ({"text": "No cluster leader", "status": 500}, "roots failed"),
        ({}, "roots behind"),
    ],
)
async def test_what_is_no_help_does_not_hold_it(
    autojump_clock: MockClock, nursery: trio.Nursery, answer: Mapping[str, object], told: str
) -> None:
    bench = await behind(nursery)
    _, leaf = bridged(bench)
    if answer:
        bench.consul.answer(ROOTS, **answer)  # type: ignore[arg-type]  # the cases above
    bench.leaf(leaf)
    await trio.sleep(0.1)
    assert bench.heard.told == ["published 1 0d", told, "published 2 0e"]


async def test_a_renewed_leaf_of_the_same_signer_asks_nobody(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = await behind(nursery)
    asked = len(bench.consul.questions(ROOTS))
    bench.leaf(bench.root.leaf(serial=0x0E))
    await trio.sleep(1)
    assert bench.serial == "0e"
    assert len(bench.consul.questions(ROOTS)) == asked
    assert bench.rotation.roots_first.results == {}


async def test_leaves_are_taken_in_the_order_they_came(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """The second comes while the first is held: by another way, but not before it."""
    bench = await behind(nursery)
    _, first = bridged(bench)
    bench.consul.say(ROOTS, Scripted(hang=True))
    bench.leaf(first)
    await trio.sleep(1)
    bench.leaf(bench.root.leaf(serial=0x0F))
    await trio.sleep(3)
    assert bench.heard.told == ["published 1 0d", "roots late", "published 2 0e", "published 3 0f"]


class Held:
    """Roots first by itself, with a roots endpoint that answers when it is told to."""

    def __init__(self) -> None:
        self.old, self.new = Issuer.root(now=START), Issuer.root(now=START)
        self.bundle: Latest[TrustBundle] = Latest(bundle_of(self.old))
        self.answers = trio.Event()
        self.newest = 0
        self.roots_first = RootsFirst(self.ask, self.bundle, self.bundle.publish, lambda: self.newest)
        minted = self.new.leaf()
        self.leaf: Leaf = parse_leaf(minted.cert_pem, minted.key_pem)

    async def ask(self) -> Answer[Json]:
        await self.answers.wait()
        return Answer(value=roots_answer(self.new, self.old), index=7)


async def test_the_watch_may_be_first(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    held = Held()

    async def watch() -> None:
        await trio.sleep(0.5)
        held.bundle.publish(bundle_of(held.old))  # news, but not what is waited for
        await trio.sleep(0.5)
        held.bundle.publish(bundle_of(held.new, held.old))

    nursery.start_soon(watch)
    assert await held.roots_first.have(held.leaf, 2) is CatchUp.CAME
    assert trio.current_time() == pytest.approx(1)
    assert held.bundle.version == 3


async def test_or_the_answer(autojump_clock: MockClock) -> None:
    held = Held()
    held.answers.set()
    assert await held.roots_first.have(held.leaf, 2) is CatchUp.CAME
    assert held.bundle.value == parse_roots(roots_answer(held.new, held.old))
    assert await held.roots_first.have(held.leaf, 2) is None
    assert held.roots_first.results == {CatchUp.CAME: 1}


async def test_roots_of_the_past_are_not_taken() -> None:
    """They may list a root that has been removed since."""
    held = Held()
    held.answers.set()
    held.newest = 8
    assert await held.roots_first.have(held.leaf, 2) is CatchUp.BEHIND
    assert held.bundle.version == 1
    held.newest = 7
    assert await held.roots_first.have(held.leaf, 2) is CatchUp.CAME


async def test_a_refusal_is_a_failure() -> None:
    held = Held()

    async def refuse() -> Answer[Json]:
        raise ConsulError(ConsulReason.DENIED, ROOTS, "Permission denied", status=403)

    roots_first = RootsFirst(refuse, held.bundle, held.bundle.publish, lambda: 0)
    assert await roots_first.have(held.leaf, 2) is CatchUp.FAILED


async def test_a_leaf_that_does_not_say_who_signed_it_waits_for_nothing() -> None:
    held = Held()
    minted = held.new.leaf(bare=True, uris=None)
    leaf = parse_leaf(minted.cert_pem, minted.key_pem)
    assert leaf.signer == ""
    assert await held.roots_first.have(leaf, 2) is None
