"""A handshake that began before rotations of the root and ends after them: how many it bears.

It is verified by the roots it began with, and judged by those in force when it ends; the peer shows its
newest leaf. The bound is the authority's: it sends the bridges of the last minute, six at most
(`docs/trust.md`); after that minute the newest alone, as Consul does. Virtual time, real authorities.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from trio.testing import MockClock

from certs.bundle import parse_roots
from certs.contexts import Contexts, build_contexts
from certs.credentials import prove
from certs.leaf import parse_leaf
from datacenter.ca.certificates import certificate_pem
from datacenter.ca.keys import KeyKind, generate_key, key_pem, load_key
from datacenter.ca.trust import MOST_BRIDGES
from tests.datacenter.mint import MintedLeaf, external_root, refusals
from tests.datacenter.sites import Site, Wan, now, running
from tests.rotation.handshakes import shake

ROOTS = "/v1/agent/connect/ca/roots"
LEAF = "/v1/agent/connect/ca/leaf"
ROTATE = "/v1/connect/ca/rotate"
CONFIGURATION = "/v1/connect/ca/configuration"

Generations = list[tuple[Contexts, Contexts]]  # web's in dc1, db's in dc2


async def credentials(site: Site, service: str, generation: int) -> Contexts:
    """What a sidecar there has in force when it has followed."""
    roots, answer = await site.get(ROOTS), await site.get(f"{LEAF}/{service}")
    leaf = parse_leaf(answer["CertPEM"], answer["PrivateKeyPEM"])
    proven = prove(leaf, parse_roots(roots), service=service, datacenter=site.dc.settings.name, at=now())
    return build_contexts(proven, generation)


async def rotate(dc1: Site, number: int) -> None:
    """To a key of the datacenter's own, of two kinds in turn, and each third time to a root from elsewhere.

    No RSA key is made by the datacenter: it would make it in a thread, and virtual time would run away.
    """
    if number % 3:
        await dc1.put(ROTATE, {"PrivateKeyType": "ec", "PrivateKeyBits": (256, 384)[number % 2]})
        return
    key = generate_key(KeyKind("rsa", 2048))
    root = certificate_pem(external_root(key, key_id=True))
    config = {"PrivateKey": key_pem(key), "RootCert": root}
    await dc1.put(CONFIGURATION, {"Provider": "consul", "Config": config})


async def generations(dc1: Site, dc2: Site, pauses: Sequence[float]) -> Generations:
    """One before, and one after each rotation; after each of them that many seconds."""
    made = []
    for number, pause in enumerate((0.0, *pauses)):
        if number:
            await rotate(dc1, number)
        await trio.sleep(pause + 0.1)  # dc2 follows
        made.append((await credentials(dc1, "web", number), await credentials(dc2, "db", number)))
    return made


def both_ways(began: tuple[Contexts, Contexts], ends: tuple[Contexts, Contexts]) -> None:
    """Either end may be the late one, as client and as server."""
    for late, peer in ((began[0], ends[1]), (began[1], ends[0])):
        shake(late, peer, now(), newest=ends[0])
        shake(peer, late, now(), newest=ends[0])


async def test_six_rotations_within_a_minute_are_borne_and_no_more(autojump_clock: MockClock) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2")
    async with running(dc1, dc2):
        made = await generations(dc1, dc2, [2.0] * (MOST_BRIDGES + 1))
        for began in range(len(made)):
            for ends in range(began, min(began + MOST_BRIDGES, len(made) - 1) + 1):
                both_ways(made[began], made[ends])
        with pytest.raises(SSL.Error, match="certificate verify failed"):
            both_ways(made[0], made[MOST_BRIDGES + 1])


async def test_the_longest_chain_verifies_with_three_that_are_not_ours(autojump_clock: MockClock) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2")
    async with running(dc1, dc2):
        first = dc1.trust.roots
        await generations(dc1, dc2, [1.0] * MOST_BRIDGES)
        answer = await dc2.get(f"{LEAF}/db")
        key = load_key(answer["PrivateKeyPEM"])
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        leaf = MintedLeaf(cert_pem=answer["CertPEM"], key=key)
        assert answer["CertPEM"].count("BEGIN") == 1 + MOST_BRIDGES + 1
        for roots in (first, dc1.trust.roots, (dc1.trust.active,)):
            assert refusals(leaf, roots) == {}


async def test_after_a_minute_it_is_as_with_consul(autojump_clock: MockClock) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2")
    async with running(dc1, dc2):
        made = await generations(dc1, dc2, [90.0, 90.0, 1.0])
        both_ways(made[0], made[1])
        both_ways(made[1], made[2])
        with pytest.raises(SSL.Error, match="certificate verify failed"):
            both_ways(made[0], made[2])
        both_ways(made[1], made[2])
        both_ways(made[2], made[3])


async def test_the_chain_goes_back_to_its_usual_length(autojump_clock: MockClock) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2")
    async with running(dc1, dc2):
        await generations(dc1, dc2, [1.0] * 9)
        assert len(dc1.trust.active.intermediates) == MOST_BRIDGES
        await trio.sleep(90)
        await generations(dc1, dc2, [1.0])
        assert len(dc1.trust.active.intermediates) == 1
