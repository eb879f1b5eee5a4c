"""Two and three datacenters: who knows whom, who trusts whom, what crosses the wires."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives import serialization
from trio.testing import MockClock

from datacenter.ca.certificates import intermediate_request
from datacenter.ca.keys import generate_key, key_pem
from datacenter.federation.secondary import State
from datacenter.http.forward import DATACENTERS
from datacenter.state.settings import Settings
from tests.datacenter.sites import (
    Site,
    Wan,
    accepts,
    assert_mutual_trust,
    running,
)

ROOTS = "/v1/agent/connect/ca/roots"
LEAF = "/v1/agent/connect/ca/leaf"
CONFIGURATION = "/v1/connect/ca/configuration"
ROTATE = "/v1/connect/ca/rotate"
STATUS = "/v1/internal/federation/status"


def start(site: Site) -> None:
    """The authority without the background services."""
    site.ca.start()


async def test_a_secondary_joins_and_signs_under_the_primarys_root(autojump_clock: MockClock) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2")
    async with running(dc1, dc2):
        await assert_mutual_trust(dc1, dc2)
        (root,) = (await dc2.get(ROOTS))["Roots"]
        assert root["SigningKeyID"] != dc1.trust.active.signing_key_id
        leaf = await dc2.get(f"{LEAF}/db")
        assert leaf["ServiceURI"].endswith("/dc/dc2/svc/db")
        assert leaf["CertPEM"].endswith(root["IntermediateCerts"][0])
        assert dc2.standing == (State.JOINED, "")
        assert await dc2.get(f"{LEAF}/db?dc=dc1") != leaf


async def test_every_datacenter_learns_of_every_other(autojump_clock: MockClock) -> None:
    wan = Wan()
    dc1, dc2, dc3 = wan.site("dc1"), wan.site("dc2"), wan.site("dc3")
    async with running(dc1, dc2, dc3):
        for site in (dc1, dc2, dc3):
            assert set(site.dc.federation.datacenters()) == {"dc1", "dc2", "dc3"}
        leaf = await dc2.get(f"{LEAF}/db?dc=dc3")
        assert "/dc/dc3/" in leaf["ServiceURI"]
        await assert_mutual_trust(dc1, dc2, dc3)


async def test_addresses_outlive_a_restart(autojump_clock: MockClock, tmp_path: Path) -> None:
    wan = Wan()
    async with running(wan.site("dc1"), wan.site("dc2", path=tmp_path / "dc2")):
        wan.sites["dc2"].dc.store.close()
    again = wan.site("dc2", path=tmp_path / "dc2")
    assert again.dc.federation.base_url("dc1") == "http://dc1.example:8500"
    again.dc.store.close()


async def test_rotation_reaches_the_secondary_and_every_mix_of_old_and_new_verifies(
    autojump_clock: MockClock,
) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1", leaf_ttl=3600.0), wan.site("dc2", leaf_ttl=3600.0)
    async with running(dc1, dc2):
        old_trust = [dc1.trust, dc2.trust]
        old_leaves = [await site.get(f"{LEAF}/web") for site in (dc1, dc2)]
        await dc1.put(ROTATE)
        await trio.sleep(0.5)
        new_leaves = [await site.get(f"{LEAF}/web", token="new") for site in (dc1, dc2)]
        assert [leaf["CertPEM"].count("BEGIN") for leaf in new_leaves] == [2, 3]
        for trust in (*old_trust, dc1.trust, dc2.trust):
            for leaf in (*old_leaves, *new_leaves):
                assert accepts(trust, leaf)
        await trio.sleep(4 * 3600)  # leaves are gone, and with them the old root
        await assert_mutual_trust(dc1, dc2)
        assert [len(site.trust.roots) for site in (dc1, dc2)] == [1, 1]


async def test_rotation_asked_of_the_secondary_is_done_by_the_primary(autojump_clock: MockClock) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2")
    async with running(dc1, dc2):
        before = dc1.trust.active.id
        assert (await dc2.put(ROTATE))["ActiveRootID"] == dc1.trust.active.id != before
        await trio.sleep(0.5)
        await assert_mutual_trust(dc1, dc2)


async def test_a_waiting_watcher_in_the_secondary_sees_the_rotation_once(autojump_clock: MockClock) -> None:
    """Recorded: one answer, with cross-signature and the secondary's new intermediate together."""
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2")
    async with running(dc1, dc2) as nursery:
        first = await dc2.call("GET", ROOTS)
        nursery.start_soon(dc1.put, ROTATE)
        second = await dc2.call("GET", f"{ROOTS}?index={first.index}&wait=30s")
        active = next(root for root in second.body["Roots"] if root["Active"])
        assert len(active["IntermediateCerts"]) == 2
        third = await dc2.call("GET", f"{ROOTS}?index={second.index}&wait=30s")
        assert third.body == second.body


async def test_leaves_change_only_after_the_roots(autojump_clock: MockClock) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2")
    events: list[str] = []

    async def watch(what: str, path: str) -> None:
        answered = await dc2.call("GET", path)
        await dc2.call("GET", f"{path}?index={answered.index}&wait=120s")
        events.append(what)

    async with running(dc1, dc2), trio.open_nursery() as watchers:
        watchers.start_soon(watch, "roots", ROOTS)
        for name in "abc":
            watchers.start_soon(watch, "leaf", f"{LEAF}/{name}")
        await trio.sleep(1)
        await dc1.put(ROTATE)
    assert events == ["roots", "leaf", "leaf", "leaf"]


KEY_TEXT = re.compile(rb"PRIVATE KEY")


async def test_no_key_crosses_the_wire_and_each_store_holds_its_own(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1", path=tmp_path / "dc1"), wan.site("dc2", path=tmp_path / "dc2")
    async with running(dc1, dc2):
        for _ in range(3):
            await dc1.put("/v1/connect/ca/configuration", _with_a_key())
            await trio.sleep(1)
        keys = [_scalar(site) for site in (dc1, dc2)]
    assert len(wan.crossed) > 10
    for crossed in wan.crossed:
        assert not KEY_TEXT.search(crossed)
        assert not any(key in crossed for key in keys)
    for site, other in ((dc1, 1), (dc2, 0)):
        site.dc.store.close()
        held = b"".join(path.read_bytes() for path in tmp_path.glob(f"{site.dc.settings.name}*"))
        assert keys[other] not in held
        assert keys[1 - other] in held
        assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())


def _with_a_key() -> dict[str, Any]:
    return {"Provider": "consul", "Config": {"PrivateKey": key_pem(generate_key())}}


def _scalar(site: Site) -> bytes:
    """A stretch of the signing key's text that no other text has."""
    return key_pem(site.ca.signer().key).splitlines()[1].encode()


@pytest.mark.parametrize("secret_place", ["log", "status", "repr"])
async def test_keys_are_not_spoken_of(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, secret_place: str
) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2")
    with caplog.at_level(logging.DEBUG):
        async with running(dc1, dc2):
            await dc1.put(ROTATE)
            await trio.sleep(1)
            scalar = _scalar(dc2).decode()
            shown = {
                "log": caplog.text,
                "status": str(await dc2.get(STATUS)),
                "repr": repr(dc2.dc) + repr(dc2.ca.signer()) + repr(dc2.ca.issue_leaf("web")),
            }
    assert scalar not in shown[secret_place]
    assert "PRIVATE KEY" not in shown[secret_place]


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("join", {"Datacenter": "dc1", "Address": "http://x"}, "cannot join 'dc1' under the name 'dc1'"),
        ("join", {"Datacenter": "", "Address": "http://x"}, "cannot join"),
        ("join", {"Datacenter": "dc2", "Address": "x"}, "not an HTTP address: 'x'"),
        ("sign", {"CSR": "x"}, "not a PEM certificate request"),
        ("sign", {"Key": "x"}, "unknown field"),
    ],
)
async def test_the_primary_checks_what_it_is_asked(
    autojump_clock: MockClock, path: str, body: dict[str, str], text: str
) -> None:
    dc1 = Wan().site("dc1")
    start(dc1)
    answered = await dc1.call("PUT", f"/v1/internal/federation/{path}", body)
    assert answered.status == 400
    assert text in answered.body


async def test_a_request_for_another_trust_domain_is_not_signed(autojump_clock: MockClock) -> None:
    dc1, other = Wan().site("dc1"), Wan().site("dc9", primary="dc9")
    start(dc1)
    other.dc.rng.seed(99)
    start(other)
    csr = intermediate_request(generate_key(), trust_domain=other.trust.trust_domain)
    body = {"CSR": csr.public_bytes(serialization.Encoding.PEM).decode()}
    serial = dc1.dc.store.index
    answered = await dc1.call("PUT", "/v1/internal/federation/sign", body)
    assert answered.status == 400
    assert answered.body.startswith("signing refused: the certificate request is not for the trust domain")
    assert dc1.dc.store.index == serial  # the number was given back


async def test_only_the_primary_signs(autojump_clock: MockClock) -> None:
    dc2 = Wan().site("dc2")
    start(dc2)
    for method, path in (("PUT", "join"), ("PUT", "sign"), ("GET", "state"), ("GET", "config-entries")):
        answered = await dc2.call(method, f"/v1/internal/federation/{path}", {})
        assert (answered.status, answered.body) == (400, "dc2 is not the primary datacenter")


async def test_a_primary_has_no_standing(autojump_clock: MockClock) -> None:
    dc1 = Wan().site("dc1")
    async with running(dc1):
        status = await dc1.get(STATUS)
    assert status["State"] == "primary"
    assert status["ActiveRootID"] == dc1.trust.active.id


def test_settings_do_not_print_the_replication_token() -> None:
    settings = Settings(
        name="dc2", http_addr="", data_dir=None, primary_datacenter="dc1", replication_token="s3cret"
    )
    assert "s3cret" not in repr(settings)


async def test_a_configuration_is_sent_on_but_a_private_key_is_not(autojump_clock: MockClock) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2")
    async with running(dc1, dc2):
        wan.crossed.clear()
        answered = await dc2.call("PUT", f"{CONFIGURATION}?dc=dc1", _with_a_key())
        assert answered.status == 400
        assert answered.body.startswith("Bad request: a private key is not sent to another datacenter")
        assert wan.crossed == []
        config = {"Provider": "consul", "Config": {"LeafCertTTL": "70h"}}
        await dc2.put(f"{CONFIGURATION}?dc=dc1", config)
        assert (await dc1.get(CONFIGURATION))["Config"]["LeafCertTTL"] == "70h"
        assert (await dc2.get(CONFIGURATION))["Config"]["LeafCertTTL"] == "72h"


async def test_one_that_cannot_be_reached_joins_without_an_address(autojump_clock: MockClock) -> None:
    """It listens on a unix socket alone."""
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2", advertise_addr="")
    async with running(dc1, dc2):
        assert dc2.trust.active.id == dc1.trust.active.id
        assert dc1.dc.federation.datacenters() == ["dc1"]


async def test_a_primary_that_has_forgotten_a_secondary_is_told_of_it_again(
    autojump_clock: MockClock,
) -> None:
    """It was restored from a backup while out of reach; nothing that the secondary reports has changed."""
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2")
    async with running(dc1, dc2):
        known = dc1.dc.store.table(DATACENTERS)
        before = known.get("dc2")
        assert before is not None
        wan.cut("dc2")
        await trio.sleep(1)
        known.delete("dc2")
        wan.heal("dc2")
        await trio.sleep(40)
        after = known.get("dc2")
        assert after is not None
        assert after.value == before.value
