"""Every corrupt answer has exactly its own flaw: a sidecar's proof finds it by that name."""

from __future__ import annotations

import json

import pytest
import trio.lowlevel
from trio.testing import MockClock

from certs.bundle import BundleRejected, parse_roots
from certs.credentials import CredentialsRejected, prove
from certs.leaf import LeafRejected, parse_leaf
from datacenter.faults.endpoints import PATH
from datacenter.state.switches import Corruption
from tests.datacenter.sites import Site, Wan, now, running

LEAF = "/v1/agent/connect/ca/leaf/web"
ROOTS = "/v1/agent/connect/ca/roots"
REASONS = {
    Corruption.WRONG_KEY: "key_mismatch",
    Corruption.FOREIGN_CHAIN: "untrusted_chain",
    Corruption.MISSING_INTERMEDIATE: "untrusted_chain",
    Corruption.EXPIRED: "expired",
    Corruption.NOT_YET_VALID: "not_yet_valid",
    Corruption.WRONG_SERVICE: "wrong_service",
    Corruption.WRONG_DATACENTER: "wrong_datacenter",
    Corruption.WRONG_TRUST_DOMAIN: "wrong_trust_domain",
    Corruption.GARBAGE_PEM: "bad_certificate",
    Corruption.TRUNCATED_JSON: "truncated",
    Corruption.OVERSIZED_CHAIN: "oversized_chain",
    Corruption.EMPTY_ROOTS: "no_roots",
}


async def found(site: Site) -> str:
    """What a sidecar finds wrong; empty when nothing is."""
    try:
        leaf = (await site.call("GET", LEAF)).body
        roots = (await site.call("GET", ROOTS)).body
        own = parse_leaf(leaf["CertPEM"], leaf["PrivateKeyPEM"])
        prove(own, parse_roots(roots), service="web", datacenter=site.dc.settings.name, at=now())
    except (LeafRejected, BundleRejected, CredentialsRejected) as error:
        return error.reason.value
    except json.JSONDecodeError:
        return "truncated"
    return ""


@pytest.mark.parametrize("name", ["dc1", "dc2"])
@pytest.mark.parametrize("how", Corruption)
async def test_each_is_wrong_in_its_own_way_and_healed_again(
    autojump_clock: MockClock, how: Corruption, name: str
) -> None:
    wan = Wan()
    sites = {name: wan.site(name, enable_faults=True) for name in ("dc1", "dc2")}
    async with running(*sites.values()):
        site = sites[name]
        await site.put(PATH, {"Corrupt": how.value})
        reason = await found(site)
        expected = REASONS[how]
        if (how, name) == (Corruption.MISSING_INTERMEDIATE, "dc2"):
            expected = "missing_intermediate"  # the roots answer names the one that is missing
        assert reason == expected
        await site.put(PATH, {})
        assert await found(site) == ""
        await trio.lowlevel.checkpoint()
