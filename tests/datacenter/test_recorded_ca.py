"""Roots, leaves, CA configuration and rotation, held to the recordings."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from datacenter.ca.authority import CertificateAuthority
from datacenter.ca.keys import generate_key, key_pem
from datacenter.http.forward import DATACENTERS
from tests.datacenter.joined import caught_up, joined
from tests.datacenter.replay import Case, replay
from tests.datacenter.world import (
    DB,
    IDENTITY,
    MANAGEMENT,
    READ_ONLY,
    WEB,
    WEB_ONLY,
    World,
    world_a,
    world_b,
    world_c,
)

ROOTS = "GET /v1/agent/connect/ca/roots"
SERVER_ROOTS = "GET /v1/connect/ca/roots"
LEAF = "GET /v1/agent/connect/ca/leaf"
READ = "GET /v1/connect/ca/configuration"
WRITE = "PUT /v1/connect/ca/configuration"

BIGGER_KEY = {
    "LeafCertTTL": "72h",
    "IntermediateCertTTL": "8760h",
    "PrivateKeyType": "ec",
    "PrivateKeyBits": 384,
}
ELEVEN_MINUTES = {"LeafCertTTL": "11m", "IntermediateCertTTL": "8760h", "SkipValidate": True}


def configuration(**config: Any) -> dict[str, Any]:
    return {"Provider": "consul", "Config": config}


def with_a_new_key() -> dict[str, Any]:
    """`rot2.json` and `rot3.json`."""
    return configuration(LeafCertTTL="72h", IntermediateCertTTL="8760h", PrivateKey=key_pem(generate_key()))


async def write(world: World, body: dict[str, Any]) -> None:
    await world.dc1.ok("PUT", "/v1/connect/ca/configuration", body, token=MANAGEMENT)


async def roots_asked_for(world: World) -> None:
    """Both agents have the roots in their caches."""
    await joined(world)
    for site in (world.dc1, world.dc2):
        await site.ok("GET", "/v1/agent/connect/ca/roots")


async def leaves_asked_for(world: World) -> None:
    """As `roots_asked_for`, and web's leaf in dc1 and db's in dc2."""
    await roots_asked_for(world)
    await world.dc1.ok("GET", "/v1/agent/connect/ca/leaf/web", token=WEB)
    await world.dc2.ok("GET", "/v1/agent/connect/ca/leaf/db", token=DB)


async def change_key_size(world: World) -> None:
    await write(world, configuration(**BIGGER_KEY))


async def key_size_changed(world: World) -> None:
    await roots_asked_for(world)
    await change_key_size(world)


async def rotate(world: World) -> None:
    """A new private key in dc1, and dc2 signed under its root."""
    await write(world, with_a_new_key())
    await caught_up(world)


async def rotated(world: World) -> None:
    await leaves_asked_for(world)
    await rotate(world)


async def rotated_and_fetched(world: World) -> None:
    """As `rotated`, and the leaves are those of the new root."""
    await rotated(world)
    await world.dc1.ok("GET", "/v1/agent/connect/ca/leaf/web", token=WEB)
    await world.dc2.ok("GET", "/v1/agent/connect/ca/leaf/db", token=DB)


async def rotated_twice(world: World) -> None:
    await rotated_and_fetched(world)
    await trio.sleep(24 * 60)  # as between the recordings
    await rotate(world)


async def primary_down(world: World) -> None:
    await rotated_and_fetched(world)
    world.down.add("dc1")


async def orphaned(world: World) -> None:
    """C-orphan-dc2: a secondary that never reached its primary."""
    CertificateAuthority(world.dc2.dc).start()
    world.dc2.dc.store.table(DATACENTERS).delete("dc1")


def a(recording: str, request: str, token: str = "", **more: Any) -> Case:
    return Case(
        recording=recording, world=world_a, request=request, token=token, **{"before": joined, **more}
    )


def b(recording: str, **config: Any) -> Case:
    body = configuration(**config)
    return Case(recording=recording, world=world_b, request=WRITE, body=body, before=joined)


def c(recording: str, request: str, **more: Any) -> Case:
    return Case(recording=recording, world=world_c, request=request, at="dc2", before=orphaned, **more)


DC2: dict[str, Any] = {"at": "dc2"}

# Two watchers of each, whose first answers were the same: rotation1-… is the second one's.
WATCH_WEB = f"{LEAF}/web?index={{index}}&wait=60s"
WATCH_DB = f"{LEAF}/db?index={{index}}&wait=60s"
IDLE_ROOTS = ("rotation-roots1-3", "rotation-roots1-4", "rotation-roots1-5")
IDLE_ROOTS_DC2 = ("rotation-roots2-3", "rotation-roots2-4", "rotation-roots2-5")
WOKEN_WEB, IDLE_WEB = ("rotation-leaf1-2", "rotation1-leaf1-3"), ("rotation-leaf1-3", "rotation-leaf1-4")
WOKEN_DB = ("rotation-leaf2-2", "rotation1-leaf2-3")
IDLE_DB = ("rotation-leaf2-3", "rotation-leaf2-4", "rotation-leaf2-5")

CASES = [
    # roots
    a("roots-agent", ROOTS, before=roots_asked_for),
    a("roots-agent-secondary", ROOTS, before=roots_asked_for, **DC2),
    a("roots-server-endpoint", SERVER_ROOTS),
    a("roots-pem", f"{SERVER_ROOTS}?pem=true"),
    a("roots-pem-secondary", f"{SERVER_ROOTS}?pem=true", **DC2),
    a("roots-after-keybits-change", ROOTS, before=key_size_changed),
    # leaf
    a("leaf-web-dc1", f"{LEAF}/web", WEB, before=leaves_asked_for),
    a("leaf-db-dc2-secondary", f"{LEAF}/db", DB, **DC2),
    a("leaf-weird-name", f"{LEAF}/We_b.X", MANAGEMENT),
    a("leaf-empty-name", f"{LEAF}/", MANAGEMENT),
    a("leaf-unregistered-service", f"{LEAF}/ghost", MANAGEMENT),
    a("leaf-identity-token", f"{LEAF}/web", IDENTITY, before=rotated),
    a("leaf-other-dc", f"{LEAF}/web?dc=dc2", MANAGEMENT),
    a("leaf-badtoken", f"{LEAF}/web", "deadbeef-0000-0000-0000-000000000000"),
    a("leaf-denied-anonymous", f"{LEAF}/web"),
    a("leaf-denied-other-service", f"{LEAF}/db", WEB_ONLY),
    a("leaf-denied-readonly", f"{LEAF}/web", READ_ONLY),
    a("leaf-blocking-timeout", f"{LEAF}/web?index={{index}}&wait=2s", WEB, seconds=2.0),
    a("leaf-after-keybits-change", f"{LEAF}/web", WEB_ONLY, before=key_size_changed),
    # configuration
    a("ca-config", READ, MANAGEMENT),
    a("ca-config-secondary", READ, MANAGEMENT, **DC2),
    a("ca-config-denied", READ, WEB),
    a("ca-config-put-keybits-no-rotation", WRITE, MANAGEMENT, body=configuration(**BIGGER_KEY)),
    Case(
        recording="ca-config-put-bad-provider",
        world=world_b,
        request=WRITE,
        body={"Provider": "nope", "Config": {}},
        before=joined,
    ),
    b("ca-config-put-ttl-too-low", LeafCertTTL="30m", IntermediateCertTTL="8760h"),
    b("ca-config-put-ttl-too-high", LeafCertTTL="9000h", IntermediateCertTTL="8760h"),
    b("ca-config-put-intermediate-too-low", LeafCertTTL="72h", IntermediateCertTTL="100h"),
    b("ca-config-put-skipvalidate", **ELEVEN_MINUTES),
    Case(
        recording="ca-config-put-skipvalidate-dc2",
        world=world_b,
        request=WRITE,
        body=configuration(**ELEVEN_MINUTES),
        before=joined,
        at="dc2",
    ),
    # a configuration that does not rotate wakes the watchers of the roots all the same
    a("configchange-roots1-1", ROOTS, before=roots_asked_for),
    a("configchange-roots1-2", f"{ROOTS}?index={{index}}&wait=60s", during=change_key_size, seconds=0.0),
    a("configchange-roots2-1", ROOTS, before=roots_asked_for, **DC2),
    a("configchange-leaf1-1", f"{LEAF}/web", WEB, before=leaves_asked_for),
    a("configchange-leaf2-1", f"{LEAF}/db", DB, before=roots_asked_for, **DC2),
    # rotation
    a("rotation-before-roots-dc1", ROOTS, before=roots_asked_for),
    a("rotation-before-roots-dc2", ROOTS, before=roots_asked_for, **DC2),
    a("rotation-before-leaf-dc2", f"{LEAF}/db", DB, before=leaves_asked_for, **DC2),
    a("rotation-put", WRITE, MANAGEMENT, body=with_a_new_key()),
    a("rotation-during-roots-dc1", ROOTS, before=rotated),
    a("rotation-during-roots-dc2", ROOTS, before=rotated, **DC2),
    a("rotation-during-leaf-nonblocking-dc1", f"{LEAF}/web", WEB_ONLY, before=rotated),
    a("rotation-roots1-1", ROOTS, before=roots_asked_for),
    a("rotation-roots1-2", f"{ROOTS}?index={{index}}&wait=60s", during=rotate, seconds=0.0),
    a("rotation1-roots1-3", f"{ROOTS}?index={{index}}&wait=60s", during=rotate, seconds=0.0),
    *[a(name, f"{ROOTS}?index={{index}}&wait=60s", before=rotated, seconds=60.0) for name in IDLE_ROOTS],
    a("rotation-roots2-1", ROOTS, before=roots_asked_for, **DC2),
    a("rotation-roots2-2", f"{ROOTS}?index={{index}}&wait=60s", during=rotate, seconds=0.0, **DC2),
    a("rotation1-roots2-3", f"{ROOTS}?index={{index}}&wait=60s", during=rotate, seconds=0.0, **DC2),
    *[
        a(name, f"{ROOTS}?index={{index}}&wait=60s", before=rotated, seconds=60.0, **DC2)
        for name in IDLE_ROOTS_DC2
    ],
    a("rotation-leaf1-1", f"{LEAF}/web", WEB, before=leaves_asked_for),
    *[a(name, WATCH_WEB, WEB, before=leaves_asked_for, during=rotate) for name in WOKEN_WEB],
    *[a(name, WATCH_WEB, WEB, before=rotated, seconds=60.0) for name in IDLE_WEB],
    a("rotation1-leaf1-2", WATCH_WEB, WEB, before=leaves_asked_for, seconds=60.0),
    a("rotation-leaf2-1", f"{LEAF}/db", DB, before=leaves_asked_for, **DC2),
    *[a(name, WATCH_DB, DB, before=leaves_asked_for, during=rotate, **DC2) for name in WOKEN_DB],
    *[a(name, WATCH_DB, DB, before=rotated, seconds=60.0, **DC2) for name in IDLE_DB],
    a("rotation1-leaf2-2", WATCH_DB, DB, before=leaves_asked_for, seconds=60.0, **DC2),
    a("rotation2-put", WRITE, MANAGEMENT, before=rotated, body=with_a_new_key()),
    a("rotation2-roots-dc1", ROOTS, before=rotated_twice),
    a("rotation2-roots-dc2", ROOTS, before=rotated_twice, **DC2),
    a("rotation2-leaf-dc1-nonblocking", f"{LEAF}/web", WEB, before=rotated_twice),
    a("rotation2-leaf-dc2-nonblocking", f"{LEAF}/db", DB, before=rotated_twice, **DC2),
    # a secondary that never reached its primary
    c("secondary-uninitialised-roots", ROOTS),
    c("secondary-uninitialised-serverroots", SERVER_ROOTS),
    c("secondary-uninitialised-leaf", f"{LEAF}/web"),
    c(
        "secondary-uninitialised-intention-put",
        "PUT /v1/connect/intentions/exact?source=a&destination=b",
        body={"Action": "allow"},
    ),
    # a secondary whose primary is down
    a("outage-primary-secondary-roots", ROOTS, before=primary_down, **DC2),
    a("outage-primary-secondary-leaf", f"{LEAF}/db", DB, before=primary_down, **DC2),
    a("outage-primary-secondary-leaf-new", f"{LEAF}/brandnew", MANAGEMENT, before=primary_down, **DC2),
    a(
        "outage-primary-secondary-ca-put",
        WRITE,
        MANAGEMENT,
        before=primary_down,
        body=configuration(LeafCertTTL="71h", IntermediateCertTTL="8760h"),
        **DC2,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_recorded(case: Case, autojump_clock: object) -> None:
    await replay(case)
