"""Renewal without the watch; too many leaves, stale and early ones; the end of the last. Virtual time."""

from __future__ import annotations

from datetime import timedelta

import pytest
import trio
from trio.testing import MockClock

from agent.consul.answers import LeafAnswer
from agent.consul.api import Answer, Blocking
from agent.control.credentials import RenewalResult, RenewalSource
from certs.peer import PeerReason, PeerRejected
from tests.certs.authority import OTHER_TRUST_DOMAIN, Issuer, Minted
from tests.rotation.handshakes import shake
from tests.support.credentials_keeper import HOUR, LEAF, ROOTS, START, Bench, begin, clock
from tests.support.fake_consul import Scripted
from tests.support.socket_pairs import contexts_of


def short(root: Issuer, serial: int = 0x0D, hours: float = 1) -> Minted:
    return root.leaf(serial=serial, not_after=START + timedelta(hours=hours))


async def serving(nursery: trio.Nursery, minted: Minted | None = None) -> Bench:
    bench = Bench(nursery)
    bench.roots(bench.root)
    bench.leaf(minted or bench.root.leaf())
    await begin(bench, nursery)
    return bench


async def test_a_question_that_hangs_is_given_up(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """The blocking question is never answered; one without an index is."""
    bench = Bench(nursery)
    bench.roots(bench.root)
    bench.leaf(short(bench.root))
    bench.consul.hang_blocking(LEAF)
    await begin(bench, nursery)
    assert bench.serial == "0d"
    bench.leaf(short(bench.root, 0x0E, hours=2))
    await trio.sleep(90)
    assert bench.serial == "0e"


async def test_a_watch_that_hangs_for_ever_does_not_keep_the_leaf_from_being_renewed(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(nursery)
    ask = bench.rotation.leaf_watch.ask
    asked = 0

    async def once(at: Blocking) -> Answer[LeafAnswer]:
        nonlocal asked
        asked += 1
        return await ask(at) if asked == 1 else await trio.sleep_forever()

    bench.rotation.leaf_watch.ask = once
    bench.roots(bench.root)
    bench.leaf(short(bench.root))
    await begin(bench, nursery)
    bench.leaf(short(bench.root, 0x0E, hours=2))
    await trio.sleep(0.6 * HOUR)
    assert bench.serial == "0d"
    await trio.sleep(0.15 * HOUR)
    assert bench.serial == "0e"
    assert bench.rotation.status.refreshes[RenewalSource.ALARM, RenewalResult.NEW] == 1


async def test_a_leaf_every_twenty_seconds_is_named(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    bench = await serving(nursery)
    for number in range(1, 9):
        await trio.sleep(20)
        bench.leaf(bench.root.leaf(serial=0x20 + number))
    await trio.sleep(1)
    assert bench.serial == "28", "it is taken all the same"
    assert [line for line in bench.heard.told if "churning" in line] == ["churning: 6 leaves within 101 s"]
    assert bench.rotation.churning
    await trio.sleep(HOUR)
    assert not bench.rotation.churning


@pytest.mark.parametrize("by", [RenewalSource.ALARM, RenewalSource.OPERATOR])
async def test_a_stale_leaf_out_of_a_cache_is_refused(
    autojump_clock: MockClock, nursery: trio.Nursery, by: RenewalSource
) -> None:
    bench = await serving(nursery)
    before = bench.contexts.value
    bench.consul.replace(LEAF)
    old = bench.root.leaf(serial=0x0C, not_before=START - timedelta(hours=1))
    bench.consul.answer(LEAF, old.answer(), index=3)
    assert await bench.rotation.refresh(by) is RenewalResult.STALE
    assert bench.contexts.value is before
    assert bench.rotation.status.rejected_reason == "stale_leaf"
    bench.consul.replace(LEAF)
    bench.consul.answer(LEAF, bench.root.leaf(serial=0x0E).answer(), index=20)
    assert await bench.rotation.refresh(by) is RenewalResult.NEW
    assert bench.rotation.status.rejected_reason == ""


async def test_an_older_leaf_is_taken_when_ours_no_longer_fits_the_roots(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = await serving(nursery)
    new = Issuer.root(now=START - timedelta(minutes=5), name="restored from a backup")
    bench.roots(new)
    await trio.sleep(1)
    assert bench.serial == "0d"
    bench.leaf(new.leaf(serial=0x0B))
    await trio.sleep(1)
    assert bench.serial == "0b"


async def test_another_trust_domain_is_in_force_at_once_and_our_leaf_when_it_comes(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Our datacenter has joined a primary: roots and leaf of its trust domain come one after the other."""
    bench = await serving(nursery)
    joined = Issuer.root(OTHER_TRUST_DOMAIN, now=START)
    bench.roots(joined)
    await trio.sleep(1)
    assert (bench.serial, bench.rotation.status.rejected_reason) == ("0d", "wrong_trust_domain")
    assert bench.current.credentials.bundle.trust_domain.name == OTHER_TRUST_DOMAIN
    assert bench.current.credentials.unfit.startswith("wrong_trust_domain: ")
    bench.leaf(joined.leaf(serial=0x01))
    await trio.sleep(1)
    assert (bench.serial, bench.rotation.status.rejected_reason) == ("01", "")
    assert bench.current.credentials.unfit == ""


async def test_a_leaf_that_is_not_valid_yet_is_held_without_being_asked_for_again(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = await serving(nursery)
    bench.leaf(bench.root.leaf(serial=0x0E, not_before=START + timedelta(seconds=20)))
    await trio.sleep(2)
    assert (bench.serial, bench.rotation.status.rejected_reason) == ("0d", "not_yet_valid")
    bench.consul.down = True
    bench.consul.replace(LEAF)
    await trio.sleep(17.5)
    assert bench.serial == "0e"
    assert bench.rotation.status.rejected_reason == ""


async def test_the_same_roots_in_another_order_and_index_are_no_generation(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(nursery)
    other = Issuer.root(now=START, name="other root")
    bench.roots(bench.root, other)
    bench.leaf(bench.root.leaf())
    await begin(bench, nursery)
    before = bench.contexts.value
    bench.roots(other, bench.root)  # which of them is active, and so the signing key id, differs too
    await trio.sleep(1)
    assert bench.contexts.value is before
    assert bench.rotation.bundle is not None
    assert bench.rotation.bundle.active.id != bench.current.credentials.bundle.active.id


@pytest.mark.parametrize("gone", ["refuses connections", "hangs", "answers 500"])
@pytest.mark.parametrize("since", [0.377, 2.9, 5.3, 8.1])  # seconds: whatever else is being waited for
async def test_after_the_end_of_the_leaf_it_recovers_within_two_seconds(
    autojump_clock: MockClock, nursery: trio.Nursery, gone: str, since: float
) -> None:
    bench = Bench(nursery)
    bench.roots(bench.root)
    bench.leaf(short(bench.root, hours=0.05))
    await begin(bench, nursery)
    _lose(bench, gone)
    await trio.sleep(0.075 * HOUR + since)
    assert bench.serial == "0d"
    peer = contexts_of(bench.root.leaf(service="db"), bench.root)
    with pytest.raises(PeerRejected) as refused:
        shake(peer, bench.current, clock())
    assert refused.value.reason is PeerReason.EXPIRED
    assert bench.heard.told.count("renewal failed") <= 2, "told once, not twice a second"
    _regain(bench)
    with trio.fail_after(2):
        await bench.contexts.newer(bench.contexts.version)
    assert bench.serial == "0e"
    shake(contexts_of(bench.root.leaf(service="db"), bench.root), bench.current, clock())


async def test_a_rotation_of_the_root_meanwhile_is_caught_up_with_as_soon(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(nursery)
    bench.roots(bench.root)
    bench.leaf(short(bench.root, hours=0.05))
    await begin(bench, nursery)
    _lose(bench, "refuses connections")
    await trio.sleep(0.075 * HOUR)
    bench.root = Issuer.root(now=START, name="made while it was gone")
    _regain(bench)
    with trio.fail_after(2):
        version = bench.contexts.version
        while bench.serial != "0e":
            _, version = await bench.contexts.newer(version)
    assert bench.current.credentials.unfit == ""


def _lose(bench: Bench, gone: str) -> None:
    bench.consul.drop()
    match gone:
        case "refuses connections":
            bench.consul.down = True
        case "hangs":
            for path in (LEAF, ROOTS):
                bench.consul.replace(path)
                bench.consul.say(path, Scripted(hang=True))
        case _:
            for path in (LEAF, ROOTS):
                bench.consul.replace(path)
                bench.consul.answer(path, text="No cluster leader", status=500)


def _regain(bench: Bench) -> None:
    bench.consul.down = False
    for path in (LEAF, ROOTS):
        bench.consul.replace(path)
    bench.roots(bench.root)
    bench.leaf(bench.root.leaf(serial=0x0E))
