"""Roots in force are exactly those that Consul lists, at once, whatever our own leaf hangs on."""

from __future__ import annotations

import pytest
import trio
from OpenSSL import SSL
from trio.testing import MockClock

from certs.contexts import Contexts
from certs.credentials import OwnFault
from certs.peer import PeerReason, PeerRejected, verify_peer
from tests.certs.authority import Issuer, Minted, der, roots_answer
from tests.certs.test_contexts import REFUSED_KEYS
from tests.rotation.handshakes import shake
from tests.support.credentials_keeper import LEAF, ROOTS, START, Bench, begin, clock
from tests.support.fake_consul import Scripted
from tests.support.socket_pairs import contexts_of

OTHER = Issuer.root(now=START, name="pri-other")


async def serving(nursery: trio.Nursery) -> Bench:
    """A leaf of the one root is in force, and the leaf endpoint falls silent."""
    bench = Bench(nursery)
    bench.roots(bench.root)
    bench.leaf(bench.root.leaf())
    await begin(bench, nursery)
    bench.consul.say(LEAF, Scripted(hang=True))
    return bench


def peer(root: Issuer, *trusted: Issuer) -> Contexts:
    return contexts_of(root.leaf(service="db", datacenter="dc2"), root, *trusted)


def judged(bench: Bench, root: Issuer) -> PeerReason | None:
    """What the agent says of a peer whose handshake began when that root was still trusted."""
    minted: Minted = root.leaf(service="db")
    try:
        verify_peer([*minted.chain_der, der(root.certificate)], bench.current.credentials.bundle, START)
    except PeerRejected as error:
        return error.reason
    return None


async def test_a_root_that_is_removed_is_not_trusted_though_our_leaf_hangs_on_it(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = await serving(nursery)
    removed = bench.root
    assert judged(bench, removed) is None
    bench.roots(OTHER)
    for seconds in (1, 60, 600):  # the leaf endpoint is silent all the time
        await trio.sleep(seconds)
        (trusted,) = bench.current.credentials.bundle.roots
        assert trusted.certificate == OTHER.certificate
        assert judged(bench, removed) is PeerReason.UNTRUSTED_ROOT
        assert judged(bench, OTHER) is None
        for ends in ((bench.current, peer(removed, OTHER)), (peer(removed, OTHER), bench.current)):
            with pytest.raises(SSL.Error):
                shake(*ends)


async def test_our_own_leaf_is_unservable_then_by_name(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = await serving(nursery)
    bench.roots(OTHER)
    await trio.sleep(1)
    fault = bench.current.credentials.fault(clock())
    assert fault is not None
    assert fault[0] is OwnFault.UNTRUSTED
    assert bench.rotation.status.rejected_reason == "untrusted_chain"
    assert bench.heard.told[-2:] == ["rejected untrusted_chain", "unservable 2 0d"]
    assert bench.contexts.version == 2, "once, not with every question for the leaf"


async def test_the_leaf_is_asked_for_at_once_and_twice_a_second(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = await serving(nursery)
    before = len(bench.consul.questions(LEAF))
    bench.roots(OTHER)
    await trio.sleep(10)
    assert 5 <= len(bench.consul.questions(LEAF)) - before <= 20
    bench.consul.replace(LEAF)
    bench.leaf(OTHER.leaf(serial=0x0E))
    with trio.fail_after(2):
        await bench.contexts.newer(2)
    assert bench.serial == "0e"
    assert bench.current.credentials.fault(clock()) is None
    shake(peer(OTHER), bench.current)
    shake(bench.current, peer(OTHER))


async def test_a_root_that_comes_back_makes_our_leaf_good_again(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = await serving(nursery)
    bench.roots(OTHER)
    await trio.sleep(1)
    bench.roots(OTHER, bench.root)
    await trio.sleep(1)
    assert bench.current.credentials.fault(clock()) is None
    shake(peer(bench.root), bench.current)


async def test_a_bridge_of_a_root_that_stays_keeps_our_leaf_good(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """What vouches for us is any root of the list, not the one our leaf was made under."""
    bench = Bench(nursery)
    new = Issuer.root(now=START, name="pri-new")
    bench.roots(new, bench.root)
    bench.leaf(new.with_chain(bench.root.cross_sign(new)).leaf())
    await begin(bench, nursery)
    bench.roots(bench.root)
    await trio.sleep(1)
    assert len(bench.current.credentials.bundle.roots) == 1
    assert bench.current.credentials.fault(clock()) is None
    shake(peer(bench.root), bench.current)


async def test_a_leaf_whose_key_openssl_refuses_is_held_and_named(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(nursery)
    bench.roots(bench.root)
    bench.leaf(bench.root.leaf())
    await begin(bench, nursery)
    for serial, (kind, make) in enumerate(REFUSED_KEYS.items(), 0x20):
        before = bench.rotation.status.rejections["refused_by_openssl"]
        bench.leaf(bench.root.leaf(serial=serial, key=make()))
        await trio.sleep(5)
        assert bench.serial == "0d", kind
        assert bench.rotation.status.rejections["refused_by_openssl"] > before
        assert f"{serial:02x}" in bench.rotation.status.rejected_detail
    assert bench.contexts.version == 1
    shake(peer(bench.root), bench.current)
    bench.leaf(bench.root.leaf(serial=0x0E))
    await trio.sleep(5)
    assert (bench.serial, bench.rotation.status.rejected_reason) == ("0e", "")


async def test_new_roots_are_in_force_beside_a_leaf_that_openssl_refuses(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = await serving(nursery)
    bench.consul.replace(LEAF)
    bench.leaf(bench.root.leaf(serial=0x0E, key=REFUSED_KEYS["RSA 1024"]()))
    await trio.sleep(5)
    bench.roots(OTHER, bench.root)
    await trio.sleep(5)
    assert (bench.serial, len(bench.current.credentials.bundle.roots)) == ("0d", 2)
    shake(peer(OTHER, bench.root), bench.current)


async def test_roots_under_which_no_handshake_succeeds_trust_whom_they_name_and_nobody_else(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """A root of RSA with 1,024 bits: OpenSSL verifies nobody by it, ourselves included."""
    bench = await serving(nursery)
    weak = Issuer.root(now=START, key=REFUSED_KEYS["RSA 1024"]())
    bench.roots(weak)
    bench.consul.replace(LEAF)
    bench.leaf(weak.leaf(serial=0x0E))
    await trio.sleep(5)
    assert bench.serial == "0d"
    assert bench.rotation.status.rejected_reason == "refused_by_openssl"
    assert bench.current.credentials.unfit
    with pytest.raises(SSL.Error):
        shake(peer(bench.root), bench.current)


async def test_roots_that_cannot_be_read_leave_the_last_ones_in_force(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = await serving(nursery)
    for wrong in (b"[", b'{"Roots": []}', b"{}"):
        bench.consul.say(ROOTS, Scripted(body=wrong, headers={"X-Consul-Index": "500"}))
        await trio.sleep(5)
    shake(peer(bench.root), bench.current)
    assert bench.contexts.version == 1


async def test_a_retiring_root_that_cannot_be_read_keeps_no_removed_one_in_force(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(nursery)
    removed = Issuer.root(now=START, name="pri-removed")
    bench.roots(bench.root, removed)
    bench.leaf(bench.root.leaf())
    await begin(bench, nursery)
    assert judged(bench, removed) is None
    answer = roots_answer(bench.root, OTHER)
    answer["Roots"][1]["RootCert"] = "-----BEGIN CERTIFICATE-----"  # type: ignore[index]
    bench.consul.answer(ROOTS, answer, index=90)
    await trio.sleep(1)
    assert judged(bench, removed) is PeerReason.UNTRUSTED_ROOT
    assert bench.current.credentials.fault(clock()) is None
    shake(peer(bench.root), bench.current)
    assert bench.heard.told.count("roots unreadable") == 1
    assert bench.rotation.roots_watch.status.failing is None


async def test_an_active_root_that_cannot_be_read_leaves_the_last_roots_in_force(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = await serving(nursery)
    answer = roots_answer(OTHER, bench.root)
    answer["Roots"][0]["RootCert"] = "-----BEGIN CERTIFICATE-----"  # type: ignore[index]
    bench.consul.answer(ROOTS, answer, index=90)
    await trio.sleep(1)
    failing = bench.rotation.roots_watch.status.failing
    assert failing is not None
    assert failing.reason == "bad_certificate"
    shake(peer(bench.root), bench.current)
