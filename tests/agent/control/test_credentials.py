"""Roots and leaf: proven, published together, renewed in time. Virtual time ages the certificates."""

from __future__ import annotations

from datetime import timedelta

import pytest
import trio
from trio.testing import MockClock

from tests.certs.authority import OTHER_TRUST_DOMAIN, Issuer
from tests.support.credentials_keeper import HOUR, LEAF, ROOTS, START, Bench, begin, clock


async def test_roots_are_asked_for_before_the_leaf(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    bench = Bench(nursery)
    bench.consul.answer(ROOTS, text="CA has not finished initializing", status=500)
    bench.leaf(bench.root.leaf())
    await begin(bench, nursery)
    assert not bench.consul.questions(LEAF)
    bench.roots(bench.root)
    await trio.sleep(2)
    assert bench.heard.told == ["published 1 0d"]
    assert bench.contexts.value is not None
    assert bench.contexts.value.generation == 1


async def test_a_new_leaf_is_a_new_generation(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    bench = Bench(nursery)
    bench.roots(bench.root)
    bench.leaf(bench.root.leaf())
    await begin(bench, nursery)
    first = bench.contexts.value
    bench.leaf(bench.root.leaf(serial=0x0E))
    await trio.sleep(1)
    assert bench.serial == "0e"
    assert first is not None
    assert first.credentials.leaf.serial == "0d", "a live context is never changed"
    assert bench.heard.told == ["published 1 0d", "published 2 0e"]


async def test_a_root_rotation_takes_roots_first_and_then_the_leaf(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(nursery)
    bench.roots(bench.root)
    bench.leaf(bench.root.leaf())
    await begin(bench, nursery)
    new = Issuer.root(now=START, name="new root")
    bench.roots(new, bench.root)
    await trio.sleep(1)
    assert bench.serial == "0d"
    bridge = bench.root.cross_sign(new)
    bench.leaf(new.with_chain(bridge).leaf(serial=0x0E))
    await trio.sleep(20)
    assert bench.serial == "0e"
    assert bench.heard.told == ["published 1 0d", "published 2 0d", "published 3 0e"]


async def test_a_leaf_before_its_roots_waits_for_them(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(nursery)
    bench.roots(bench.root)
    bench.leaf(bench.root.leaf())
    await begin(bench, nursery)
    new = Issuer.root(now=START, name="new root")
    bench.leaf(new.leaf(serial=0x0E))
    await trio.sleep(1)
    assert bench.serial == "0d"
    assert bench.rotation.status.rejected_reason == "untrusted_chain"
    bench.roots(new, bench.root)
    await trio.sleep(1)
    assert bench.serial == "0e"
    assert bench.rotation.status.rejected_reason == ""
    assert bench.heard.told == [
        "published 1 0d",
        "roots behind",
        "rejected untrusted_chain",
        "published 2 0e",
    ]


async def test_what_does_not_fit_changes_nothing_and_says_why(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(nursery)
    bench.roots(bench.root)
    bench.leaf(bench.root.leaf())
    await begin(bench, nursery)
    stranger = Issuer.root(OTHER_TRUST_DOMAIN, now=START)
    for wrong in (
        bench.root.leaf(service="db", serial=1),
        bench.root.leaf(datacenter="dc2", serial=2),
        stranger.leaf(serial=3),
    ):
        bench.leaf(wrong)
        await trio.sleep(5)
    assert bench.serial == "0d"
    assert bench.rotation.status.rejections == {
        "wrong_service": 1,
        "wrong_datacenter": 1,
        "wrong_trust_domain": 1,
    }
    assert bench.rotation.status.rejected_at is not None
    assert bench.contexts.version == 1


async def test_a_leaf_that_cannot_be_read_changes_nothing(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(nursery)
    bench.roots(bench.root)
    bench.leaf(bench.root.leaf())
    await begin(bench, nursery)
    answer = bench.root.leaf(serial=1).answer() | {"PrivateKeyPEM": "no key"}
    bench.consul.answer(LEAF, answer, index=99)
    await trio.sleep(5)
    assert bench.serial == "0d"
    failing = bench.rotation.leaf_watch.status.failing
    assert failing is not None
    assert failing.reason == "bad_key"


async def test_any_datacenter_will_do_when_nobody_has_told_us_ours(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(nursery, datacenter=None)
    bench.roots(bench.root)
    bench.leaf(bench.root.leaf(datacenter="dc9"))
    await begin(bench, nursery)
    assert bench.serial == "0d"


def immediate(bench: Bench) -> int:
    """How many questions for the leaf were asked without an index."""
    return sum("index" not in asked.query for asked in bench.consul.questions(LEAF))


@pytest.mark.slow
async def test_the_alarm_asks_without_an_index_at_two_thirds_of_the_life(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """The watch is stuck: its question hangs at the server, which never wakes it."""
    bench = Bench(nursery)
    bench.roots(bench.root)
    bench.leaf(bench.root.leaf())
    await begin(bench, nursery)
    before = immediate(bench)
    await trio.sleep(72 * HOUR * (2 / 3 - 0.06))
    asked_early = immediate(bench) - before
    assert asked_early == 1  # the ceiling of a day: one look after 24 hours
    await trio.sleep(72 * HOUR * 0.12)
    assert immediate(bench) > before + asked_early
    assert bench.rotation.status.renewal_due is not None


async def test_the_alarm_takes_what_it_gets(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    bench = Bench(nursery)
    bench.roots(bench.root)
    bench.leaf(bench.root.leaf(not_after=START + timedelta(hours=1)))
    await begin(bench, nursery)
    bench.consul.replace(LEAF)
    bench.consul.answer(LEAF, text="Rate limit reached, try again later", status=429)
    await trio.sleep(0.75 * HOUR)
    assert "renewal failed" in bench.heard.told
    later = bench.root.at(START + timedelta(hours=1)).leaf(serial=0x0E)
    bench.consul.replace(LEAF)
    bench.consul.answer(LEAF, later.answer(), index=50)
    await trio.sleep(0.24 * HOUR)
    assert bench.serial == "0e"
    published = [line for line in bench.heard.told if line.startswith("published")]
    assert published == ["published 1 0d", "published 2 0e"], "alarm and watch publish it once"


async def test_a_fresh_leaf_moves_the_alarm(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    bench = Bench(nursery)
    bench.roots(bench.root)
    bench.leaf(bench.root.leaf(not_after=START + timedelta(hours=1)))
    await begin(bench, nursery)
    first = bench.rotation.status.renewal_due
    bench.leaf(bench.root.leaf(serial=0x0E, not_after=START + timedelta(hours=2)))
    await trio.sleep(5)
    second = bench.rotation.status.renewal_due
    assert first is not None
    assert second is not None
    assert second > first


async def test_a_leaf_that_is_not_valid_yet_is_taken_when_it_is(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(nursery)
    bench.roots(bench.root)
    bench.leaf(bench.root.leaf(not_before=START + timedelta(seconds=100)))
    await begin(bench, nursery)
    assert bench.contexts.value is None
    assert bench.rotation.status.rejected_reason == "not_yet_valid"
    await trio.sleep(150)
    assert bench.serial == "0d"


async def test_right_after_the_end_of_the_leaf_it_is_asked_for(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """The last question before the end would be followed by the next five seconds later."""
    bench = Bench(nursery)
    bench.roots(bench.root)
    bench.leaf(bench.root.leaf(not_after=START + timedelta(seconds=22)))
    await begin(bench, nursery)
    bench.consul.replace(LEAF)
    bench.consul.answer(LEAF, text="Rate limit reached, try again later", status=429)
    while clock() <= START + timedelta(seconds=22):
        due = bench.rotation.status.renewal_due
        assert due is not None
        assert due <= START + timedelta(seconds=22.5)
        await trio.sleep(0.5)
