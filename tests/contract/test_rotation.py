"""A new root key in the primary: bundles change at once, watched leaves soon after, nobody is cut off.

One rotation serves every case, and there is no second one: a Consul 1.10 whose last watcher of leaves has
once gone wakes no later one, so the watches are held open from before the rotation.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.contract.chains import (
    active_root,
    certificates,
    key_id,
    new_key,
    roots_of,
    signed_by,
    signer_id,
    trusted,
)
from tests.contract.client import Answer
from tests.contract.federation import Federation

ROOTS = "/v1/agent/connect/ca/roots"
LEAF = "/v1/agent/connect/ca/leaf/rotated"
CONFIGURATION = "/v1/connect/ca/configuration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Roots and leaf of both datacenters, dc1 first, as seen at one time."""

    roots: tuple[Any, Any]
    leaves: tuple[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """Before, after, and the watches that saw it happen."""

    before: Moment
    after: Moment
    roots_watches: tuple[Answer, ...]
    leaf_watches: tuple[Answer, ...]
    reissued: tuple[Any, Any]  # leaves nobody watched, read right after the roots had changed


def _held(federation: Federation, path: str, known: list[Answer]) -> list[Future[Answer]]:
    return [
        api.hold(f"{path}?index={answer.index}&wait=60s")
        for api, answer in zip(federation, known, strict=True)
    ]


@pytest.fixture(scope="module")
def rotation(federation: Federation) -> Rotation:
    """Rotate, once."""
    roots, leaves = ([api.get(path) for api in federation] for path in (ROOTS, LEAF))
    unwatched = [api.get(f"{LEAF}-unwatched") for api in federation]
    roots_held, leaves_held = _held(federation, ROOTS, roots), _held(federation, LEAF, leaves)
    configuration = federation.dc1.get(CONFIGURATION).json
    configuration["Config"] |= {"PrivateKey": new_key(), "RootCert": ""}
    written = federation.dc1.put(CONFIGURATION, configuration)
    assert (written.status, written.text) == (200, "")
    new_roots = [pending.result() for pending in roots_held]
    reissued = [api.get(f"{LEAF}-unwatched").json for api in federation]
    assert unwatched[0].json["CertPEM"] != reissued[0]["CertPEM"]
    new_leaves = [pending.result() for pending in leaves_held]
    return Rotation(
        before=Moment(roots=_pair(roots), leaves=_pair(leaves)),
        after=Moment(roots=_pair(new_roots), leaves=_pair(new_leaves)),
        roots_watches=tuple(new_roots),
        leaf_watches=tuple(new_leaves),
        reissued=(reissued[0], reissued[1]),
    )


def _pair(answers: list[Answer]) -> tuple[Any, Any]:
    first, second = (answer.json for answer in answers)
    return first, second


def test_the_new_root_is_active_in_both_and_the_old_one_stays(rotation: Rotation) -> None:
    old = rotation.before.roots[0]["ActiveRootID"]
    assert len({roots["ActiveRootID"] for roots in rotation.after.roots}) == 1
    for roots in rotation.after.roots:
        assert roots["ActiveRootID"] != old
        assert roots["TrustDomain"] == rotation.before.roots[0]["TrustDomain"]
        assert {root["ID"]: root["Active"] for root in roots["Roots"]} == {
            old: False,
            roots["ActiveRootID"]: True,
        }


def test_each_datacenter_signs_with_a_new_key(rotation: Rotation) -> None:
    before = {active_root(roots)["SigningKeyID"] for roots in rotation.before.roots}
    after = {active_root(roots)["SigningKeyID"] for roots in rotation.after.roots}
    assert len(before | after) == 4


def test_the_old_root_signs_the_new_one_across(rotation: Rotation) -> None:
    old = certificates(active_root(rotation.before.roots[0])["RootCert"])[0]
    for roots, extras in zip(rotation.after.roots, (1, 2), strict=True):
        root = active_root(roots)
        (new,) = certificates(root["RootCert"])
        crossed, *others = [certificates(pem)[0] for pem in root["IntermediateCerts"]]
        assert len(others) == extras - 1
        assert crossed.subject == new.subject
        assert crossed.public_key() == new.public_key()
        assert signed_by(crossed, old)
        assert all(signed_by(other, new) for other in others)


def test_watched_leaves_follow_within_the_jitter(federation: Federation, rotation: Rotation) -> None:
    for answer, old, new in zip(
        rotation.leaf_watches, rotation.before.leaves, rotation.after.leaves, strict=True
    ):
        assert answer.seconds < federation.jitter + 5
        assert new["CertPEM"] != old["CertPEM"]
        assert new["PrivateKeyPEM"] != old["PrivateKeyPEM"]
        assert new["ServiceURI"] == old["ServiceURI"]
        assert new["ModifyIndex"] > old["ModifyIndex"]
    for watched in rotation.roots_watches:
        assert watched.seconds < 5


@pytest.mark.parametrize("which", [0, 1], ids=["dc1", "dc2"])
def test_a_leaf_travels_with_the_bridge_first_then_its_signer(rotation: Rotation, which: int) -> None:
    root = active_root(rotation.after.roots[which])
    for answer in (rotation.after.leaves[which], rotation.reissued[which]):
        leaf, *extra = certificates(answer["CertPEM"])
        assert extra == [certificates(pem)[0] for pem in root["IntermediateCerts"]]
        assert len(extra) == which + 1
        # dc1's leaf is signed by the key of the bridge; dc2's by the last: not in the order of the path.
        assert signer_id(leaf) == root["SigningKeyID"] == key_id(extra[-1])
        assert signed_by(leaf, extra[-1])


@pytest.mark.parametrize("which", [0, 1], ids=["dc1", "dc2"])
def test_old_and_new_leaves_verify_against_old_and_new_bundles(
    rotation: Rotation, which: int, tmp_path: Path
) -> None:
    old_bundle, new_bundle = (roots_of(moment.roots[0]) for moment in (rotation.before, rotation.after))
    new_root = certificates(active_root(rotation.after.roots[0])["RootCert"])
    old_leaf, new_leaf = (moment.leaves[which]["CertPEM"] for moment in (rotation.before, rotation.after))
    assert trusted(old_leaf, old_bundle, tmp_path)
    assert trusted(old_leaf, new_bundle, tmp_path)
    assert trusted(new_leaf, old_bundle, tmp_path)
    assert trusted(new_leaf, new_bundle, tmp_path)
    assert trusted(new_leaf, new_root, tmp_path)
    assert not trusted(old_leaf, new_root, tmp_path)


def test_the_bundle_is_the_same_in_both_datacenters(federation: Federation, rotation: Rotation) -> None:
    first, second = (api.get(ROOTS).json for api in federation)
    assert {root["RootCert"] for root in first["Roots"]} == {root["RootCert"] for root in second["Roots"]}
    assert first["ActiveRootID"] == second["ActiveRootID"] == rotation.after.roots[0]["ActiveRootID"]


def test_the_configuration_says_how_long_certificates_live(
    federation: Federation, rotation: Rotation
) -> None:
    assert rotation.after.roots
    answer = federation.dc1.get(CONFIGURATION)
    body = answer.json
    if (
        federation.kind == "embedded"
    ):  # Consul shows an operator the key that was set; ours shows it to nobody
        assert "PRIVATE KEY" not in answer.text
    assert set(body) == {
        "Provider", "Config", "State", "ForceWithoutCrossSigning", "CreateIndex", "ModifyIndex",
    }  # fmt: skip
    assert body["Provider"] == "consul"
    assert (body["Config"]["LeafCertTTL"], body["Config"]["IntermediateCertTTL"]) == ("72h", "8760h")
