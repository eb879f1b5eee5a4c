"""The authority in its store: what survives, what is pruned, what a half change leaves."""

from __future__ import annotations

import pytest
import trio
from cryptography import x509
from trio.testing import MockClock

from datacenter.ca.keys import generate_key, key_pem
from datacenter.ca.retirement import retire
from datacenter.state.store import Store
from tests.datacenter.mint import HOUR, Primary, Secondary
from tests.datacenter.sites import (
    Killed,
    Site,
    Wan,
)

ROOTS = "/v1/agent/connect/ca/roots"
LEAF = "/v1/agent/connect/ca/leaf/web"
CONFIGURATION = "/v1/connect/ca/configuration"
ROTATE = "/v1/connect/ca/rotate"


@pytest.fixture
async def site() -> Site:
    site = Wan().site("dc1")
    site.ca.start()
    return site


def configuration(**config: object) -> dict[str, object]:
    return {"Provider": "consul", "Config": config}


async def test_retired_roots_are_pruned_after_twice_the_leafs_life(
    autojump_clock: MockClock, site: Site
) -> None:
    await site.put(ROTATE)
    await trio.sleep(144 * 3600)
    retire(site.dc)
    assert len(site.trust.roots) == 2
    await trio.sleep(1)
    retire(site.dc)
    assert len(site.trust.roots) == 1


async def test_a_restart_keeps_roots_and_configuration(autojump_clock: MockClock, site: Site) -> None:
    await site.put(CONFIGURATION, configuration(LeafCertTTL="70h"))
    before = (await site.get(ROOTS), await site.get(CONFIGURATION))
    again = Wan().site("dc1", store=site.dc.store)
    again.ca.start()
    assert (await again.get(ROOTS), await again.get(CONFIGURATION)) == before


async def test_a_changed_setting_overrides_the_configuration_once(
    autojump_clock: MockClock, site: Site
) -> None:
    again = Wan().site("dc1", store=site.dc.store, leaf_ttl=3600.0)
    again.ca.start()
    assert (await again.get(CONFIGURATION))["Config"]["LeafCertTTL"] == "1h"


async def test_a_secondary_started_as_primary_makes_a_root_of_its_own(autojump_clock: MockClock) -> None:
    """Its primary is lost for good: same trust domain, nothing to cross-sign with."""

    theirs = Secondary(Primary())
    wan = Wan()
    site = wan.site("dc2", primary="dc1")
    site.ca.start()
    site.ca.install(theirs.trust, theirs.key)
    promoted = wan.site("dc2", primary="dc2", store=site.dc.store)
    promoted.ca.start()
    assert promoted.trust.trust_domain == theirs.trust.trust_domain
    assert promoted.trust.active.intermediates == ()
    assert len(promoted.trust.roots) == 2
    await promoted.put(ROTATE)
    assert len(promoted.trust.active.intermediates) == 1


async def test_before_there_is_a_root_everything_says_so(autojump_clock: MockClock) -> None:
    site = Wan().site("dc2", primary="dc1")
    site.ca.start()
    retire(site.dc)
    for path in (ROOTS, LEAF, "/v1/connect/ca/roots", "/v1/connect/ca/roots?pem=true"):
        answered = await site.call("GET", path)
        assert (answered.status, answered.body) == (500, "CA has not finished initializing")
    assert (await site.call("GET", "/v1/connect/ca/roots")).headers["X-Consul-Index"] == "1"


async def test_a_half_written_change_is_no_change(
    autojump_clock: MockClock, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies between the roots and their key: the store comes back with neither."""
    before = (await site.get(ROOTS), site.ca.signer().key.public_key())

    def die(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(Store, "put_private", die)
    with pytest.raises(Killed):
        site.ca.rotate(generate_key())
    monkeypatch.undo()
    assert (await site.get(ROOTS), site.ca.signer().key.public_key()) == before
    leaf = x509.load_pem_x509_certificate((await site.get(LEAF))["CertPEM"].encode())
    leaf.verify_directly_issued_by(site.trust.active.certificate)


async def test_rotation_survives_an_expired_root(autojump_clock: MockClock, site: Site) -> None:
    await trio.sleep(11 * 365 * 24 * 3600)
    assert (await site.call("GET", LEAF)).body == "error signing: the signing certificate has expired"
    await site.put(ROTATE)
    assert site.trust.active.intermediates == ()
    await site.get(LEAF)


async def test_a_configuration_before_the_first_start_is_that_of_the_settings(
    autojump_clock: MockClock,
) -> None:
    site = Wan().site("dc2", leaf_ttl=7200.0)
    assert site.ca.config.leaf_ttl == 2 * HOUR
    assert (await site.get(CONFIGURATION))["ModifyIndex"] == 0


async def test_without_its_key_an_authority_is_not_initialised(autojump_clock: MockClock, site: Site) -> None:
    site.dc.store.put_private("connect-ca-signer", None)
    assert (await site.call("GET", LEAF)).body == "CA has not finished initializing"


async def test_keys_and_roots_are_the_primarys_to_take() -> None:
    dc2 = Wan().site("dc2")
    body = {"Provider": "consul", "Config": {"PrivateKey": key_pem(generate_key())}}
    answered = await dc2.call("PUT", CONFIGURATION, body)
    assert answered.status == 500
    assert answered.body.endswith("PrivateKey and RootCert belong to the primary datacenter")
