"""What a CA configuration may say, and what it does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from trio.testing import MockClock

from datacenter.ca.keys import KeyKind, generate_key, key_pem
from tests.datacenter.mint import HOUR, external_root
from tests.datacenter.sites import (
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


def expiry(leaf: dict[str, str]) -> datetime:
    return datetime.fromisoformat(leaf["ValidBefore"])


def configuration(**config: object) -> dict[str, object]:
    return {"Provider": "consul", "Config": config}


async def test_a_new_private_key_rotates_and_the_same_key_again_does_not(
    autojump_clock: MockClock, site: Site
) -> None:
    body = configuration(PrivateKey=key_pem(generate_key()))
    for _ in range(2):
        await site.put(CONFIGURATION, body)
    assert len(site.trust.roots) == 2
    shown = await site.get(CONFIGURATION)
    assert "PrivateKey" not in shown["Config"]
    await site.put(CONFIGURATION, shown)  # what was read can be written back
    assert len(site.trust.roots) == 2


async def test_an_external_root_is_taken_over_and_left_again(autojump_clock: MockClock, site: Site) -> None:
    key = generate_key(KeyKind("ec", 384))
    root = external_root(key)
    pem = root.public_bytes(serialization.Encoding.PEM).decode().rstrip("\n")
    await site.put(CONFIGURATION, configuration(PrivateKey=key_pem(key), RootCert=pem))
    assert site.trust.active.certificate == root
    leaf = x509.load_pem_x509_certificate((await site.get(LEAF))["CertPEM"].encode())
    leaf.verify_directly_issued_by(root)
    await site.put(CONFIGURATION, configuration(RootCert=pem))
    await site.put(ROTATE)
    assert len(site.trust.roots) == 3


async def test_without_cross_signing_the_new_root_stands_alone(autojump_clock: MockClock, site: Site) -> None:
    body = configuration(PrivateKey=key_pem(generate_key()))
    await site.put(CONFIGURATION, {**body, "ForceWithoutCrossSigning": True})
    assert site.trust.active.intermediates == ()
    assert (await site.get(CONFIGURATION))["ForceWithoutCrossSigning"] is True


def a_key_and_anothers_root() -> dict[str, object]:
    root = external_root(generate_key()).public_bytes(serialization.Encoding.PEM).decode()
    return configuration(PrivateKey=key_pem(generate_key()), RootCert=root)


REFUSED = "error configuring provider: "
UNDECODABLE = f"{REFUSED}error decoding config: 1 error(s) decoding:\n\n* "


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"Provider": "nope", "Config": {}}, 'could not initialize provider: unknown CA provider "nope"'),
        ({"Provider": "vault"}, "could not initialize provider: CA provider 'vault' needs a real Consul"),
        (configuration(LeafCertTTL="30m"), f"{REFUSED}leaf cert TTL must be greater or equal than 1h0m0s"),
        (configuration(LeafCertTTL="9000h"), f"{REFUSED}leaf cert TTL must be less than 8760h0m0s"),
        (
            configuration(LeafCertTTL="72h", IntermediateCertTTL="100h"),
            f"{REFUSED}Intermediate Cert TTL must be greater or equal than 3 * LeafCertTTL (>=216h0m0s).",
        ),
        (
            configuration(LeafCertTTL="soon"),
            f"{UNDECODABLE}error decoding 'LeafCertTTL': time: invalid duration \"soon\"",
        ),
        (configuration(LeafCertTTL=True), f"{REFUSED}leaf cert TTL must be greater or equal than 1h0m0s"),
        (
            configuration(LeafCertTTL={}),
            (
                f"{UNDECODABLE}'LeafCertTTL' expected type 'time.Duration', "
                "got unconvertible type 'map[string]interface {}', value: 'map[]'"
            ),
        ),
        (
            configuration(RootCert=["x", "y"]),
            (
                f"{UNDECODABLE}'RootCert' expected type 'string', "
                "got unconvertible type '[]interface {}', value: '[x y]'"
            ),
        ),
        (
            configuration(CSRMaxPerSecond="x"),
            (
                f"{UNDECODABLE}cannot parse 'CSRMaxPerSecond' as float: "
                'strconv.ParseFloat: parsing "x": invalid syntax'
            ),
        ),
        (
            configuration(SkipValidate="x"),
            (
                f"{UNDECODABLE}cannot parse 'SkipValidate' as bool: "
                'strconv.ParseBool: parsing "x": invalid syntax'
            ),
        ),
        (configuration(PrivateKey=["x"]), f"{REFUSED}the private key is not an unencrypted PEM key"),
        (configuration(LeafCertTTL="0s", SkipValidate=True), f"{REFUSED}LeafCertTTL must be greater than 0"),
        (configuration(PrivateKeyType="dsa"), f"{REFUSED}private key type must be either 'ec' or 'rsa'"),
        (
            configuration(PrivateKeyBits="x"),
            (
                f"{UNDECODABLE}cannot parse 'PrivateKeyBits' as int: "
                'strconv.ParseInt: parsing "x": invalid syntax'
            ),
        ),
        (configuration(PrivateKey="x"), f"{REFUSED}the private key is not an unencrypted PEM key"),
        (configuration(RootCert="x"), f"{REFUSED}RootCert is not a PEM certificate"),
        (
            lambda: configuration(
                RootCert=external_root(generate_key()).public_bytes(serialization.Encoding.PEM).decode()
            ),
            f"{REFUSED}RootCert needs its PrivateKey",
        ),
        (a_key_and_anothers_root, f"{REFUSED}the root certificate does not belong to the private key"),
    ],
)
async def test_a_configuration_that_cannot_be_is_refused_and_changes_nothing(
    autojump_clock: MockClock,
    site: Site,
    body: dict[str, object] | Callable[[], dict[str, object]],
    text: str,
) -> None:
    before = (await site.get(CONFIGURATION), await site.get(ROOTS))
    answered = await site.call("PUT", CONFIGURATION, body() if callable(body) else body)
    assert answered.status == 500
    assert answered.body.startswith(text)
    assert (await site.get(CONFIGURATION), await site.get(ROOTS)) == before


async def test_skip_validate_allows_any_life(autojump_clock: MockClock, site: Site) -> None:
    config = {"LeafCertTTL": "11m", "IntermediateCertTTL": "8760h", "SkipValidate": True}
    await site.put(CONFIGURATION, configuration(**config))
    assert (await site.get(CONFIGURATION))["Config"] == config
    leaf = await site.get(LEAF)
    assert expiry(leaf) - datetime.fromisoformat(leaf["ValidAfter"]) == timedelta(minutes=11)


async def test_durations_may_be_nanoseconds(autojump_clock: MockClock, site: Site) -> None:
    await site.put(CONFIGURATION, configuration(LeafCertTTL=2 * 3600 * 10**9))
    assert site.ca.config.leaf_ttl == 2 * HOUR
