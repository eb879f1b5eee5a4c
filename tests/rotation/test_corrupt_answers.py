"""Twelve answers not to be believed: each leaves the old generation serving, with a named reason.

While each stands, in virtual time, peers of both directions shake hands with what is in force: none fails.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta

import pytest
import trio
from trio.testing import MockClock

from certs.contexts import Contexts
from tests.certs.authority import OTHER_TRUST_DOMAIN, Issuer, Minted, new_key, roots_answer
from tests.rotation.handshakes import shake
from tests.support.credentials_keeper import LEAF, ROOTS, START, Bench, begin
from tests.support.fake_consul import Scripted
from tests.support.socket_pairs import contexts_of

Answers = Mapping[str, object]


def leaf_of(root: Issuer) -> Minted:
    return root.leaf(serial=0x0E)


def missing_intermediate(root: Issuer) -> Answers:
    minted = root.intermediate().leaf(serial=0x0E)
    return replace(minted, extra=()).answer()


def oversized(root: Issuer) -> Answers:
    minted = leaf_of(root)
    return replace(minted, extra=(root.certificate,) * 40).answer()


CORRUPT: dict[str, tuple[str, Callable[[Issuer], object], str]] = {
    "wrong key": (LEAF, lambda root: replace(leaf_of(root), key=new_key()).answer(), "key_mismatch"),
    "foreign chain": (LEAF, lambda _: leaf_of(Issuer.root(now=START)).answer(), "untrusted_chain"),
    "missing intermediate": (LEAF, missing_intermediate, "untrusted_chain"),
    "expired": (
        LEAF,
        lambda root: root.leaf(serial=0x0E, not_after=START).answer(),
        "expired",
    ),
    "not yet valid": (
        LEAF,
        lambda root: root.leaf(serial=0x0E, not_before=START + timedelta(days=1)).answer(),
        "not_yet_valid",
    ),
    "wrong service": (LEAF, lambda root: root.leaf(serial=0x0E, service="db").answer(), "wrong_service"),
    "wrong datacenter": (
        LEAF,
        lambda root: root.leaf(serial=0x0E, datacenter="dc9").answer(),
        "wrong_datacenter",
    ),
    "wrong trust domain": (
        LEAF,
        lambda _: Issuer.root(OTHER_TRUST_DOMAIN, now=START).leaf(serial=0x0E).answer(),
        "wrong_trust_domain",
    ),
    "garbage PEM": (
        LEAF,
        lambda root: leaf_of(root).answer() | {"CertPEM": "-----BEGIN CERTIFICATE-----\nAAAA"},
        "bad_certificate",
    ),
    "truncated JSON": (LEAF, lambda root: json.dumps(leaf_of(root).answer())[:-100].encode(), "malformed"),
    "empty roots": (ROOTS, lambda root: roots_answer(root) | {"Roots": []}, "no_roots"),
    "oversized chain": (LEAF, oversized, "oversized_chain"),
}


def reasons(bench: Bench) -> set[str]:
    """Every reason that was counted, wherever it is."""
    rotation = bench.rotation
    return {
        *rotation.status.rejections,
        *rotation.leaf_watch.status.failures,
        *rotation.roots_watch.status.failures,
    }


def peers(root: Issuer) -> Contexts:
    return contexts_of(root.leaf(service="db", datacenter="dc2"), root)


@pytest.mark.parametrize("name", CORRUPT)
async def test_the_old_generation_serves_on(
    autojump_clock: MockClock, nursery: trio.Nursery, name: str
) -> None:
    path, corrupt, reason = CORRUPT[name]
    bench = Bench(nursery)
    bench.roots(bench.root)
    bench.leaf(bench.root.leaf())
    await begin(bench, nursery)
    before = bench.contexts.value
    peer = peers(bench.root)
    body = corrupt(bench.root)
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    bench.consul.say(path, Scripted(body=raw, headers={"X-Consul-Index": "500"}))
    for _ in range(10):
        await trio.sleep(7)
        shake(peer, bench.current)
        shake(bench.current, peer)
    assert bench.contexts.value is before, "not even a new generation of the same"
    assert reasons(bench) == {reason}


@pytest.mark.parametrize("name", [name for name, (path, _, _) in CORRUPT.items() if path == LEAF])
async def test_new_roots_do_not_wait_for_a_leaf_that_fits(
    autojump_clock: MockClock, nursery: trio.Nursery, name: str
) -> None:
    """A root rotation while the leaf is corrupt: peers under the new root are trusted all the same."""
    _, corrupt, _ = CORRUPT[name]
    bench = Bench(nursery)
    bench.roots(bench.root)
    bench.leaf(bench.root.leaf())
    await begin(bench, nursery)
    body = corrupt(bench.root)
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    bench.consul.say(LEAF, Scripted(body=raw, headers={"X-Consul-Index": "500"}))
    await trio.sleep(5)
    new = Issuer.root(now=START, name="new root")
    bench.roots(new, bench.root)
    await trio.sleep(5)
    bridged = new.with_chain(bench.root.cross_sign(new))
    peer = contexts_of(bridged.leaf(service="db", datacenter="dc2"), new, bench.root)
    shake(peer, bench.current)
    shake(bench.current, peer)
    assert bench.serial == "0d"
    assert len(bench.current.credentials.bundle.roots) == 2
