"""A pair that fits becomes credentials; every other pair has its reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from cryptography import x509

from certs.bundle import TrustBundle, parse_roots
from certs.credentials import CredentialsReason, CredentialsRejected, OwnFault, prove, retain
from certs.leaf import Leaf
from tests.certs.authority import (
    CLIENT_ONLY,
    OTHER_TRUST_DOMAIN,
    SERVER_ONLY,
    TRUST_DOMAIN,
    new_key,
    roots_answer,
)
from tests.certs.fitting import AT, RECORDED_AT, bundle, leaf_of, recorded_bundle, recorded_leaf, root

DAY = timedelta(days=1)


def refusal(
    leaf: Leaf, trust: TrustBundle, *, service: str = "web", datacenter: str | None = "dc1", at: datetime = AT
) -> CredentialsReason:
    with pytest.raises(CredentialsRejected) as caught:
        prove(leaf, trust, service=service, datacenter=datacenter, at=at)
    return caught.value.reason


def test_leaf_and_bundle_that_fit() -> None:
    top = root()
    leaf, trust = leaf_of(top.leaf()), bundle(top)
    proven = prove(leaf, trust, service="web", datacenter="dc1", at=AT)
    assert (proven.leaf, proven.bundle) == (leaf, trust)
    assert "key" not in repr(proven).replace("signing_key_id", "")


def test_datacenter_may_be_unknown() -> None:
    top = root()
    leaf = leaf_of(top.leaf(datacenter="dc7"))
    assert prove(leaf, bundle(top), service="web", datacenter=None, at=AT).leaf is leaf


def test_leaf_without_extended_usage_is_for_anything() -> None:
    top = root()
    leaf = leaf_of(top.leaf(usages=None))
    assert prove(leaf, bundle(top), service="web", datacenter="dc1", at=AT).leaf is leaf


def test_both_root_sets_accept_a_leaf_of_the_rotation() -> None:
    old, new = root(), root()
    leaf = leaf_of(new.with_chain(old.cross_sign(new)).intermediate().leaf())
    for trust in (bundle(old), bundle(new), bundle(new, old)):
        assert prove(leaf, trust, service="web", datacenter="dc1", at=AT).bundle is trust


def test_recorded_leaf_with_a_foreign_key_is_refused_for_the_key() -> None:
    leaf, trust = recorded_leaf("rotation-leaf1-1"), recorded_bundle("rotation-before-roots-dc1")
    assert refusal(leaf, trust, at=RECORDED_AT) is CredentialsReason.KEY_MISMATCH


def test_key_of_another_leaf() -> None:
    top = root()
    leaf = replace(leaf_of(top.leaf()), key=new_key())
    assert refusal(leaf, bundle(top)) is CredentialsReason.KEY_MISMATCH


@pytest.mark.parametrize("name", ["db", "web-sidecar-proxy"])
def test_another_service(name: str) -> None:
    top = root()
    assert refusal(leaf_of(top.leaf(service=name)), bundle(top)) is CredentialsReason.WRONG_SERVICE


def test_our_service_in_another_case() -> None:
    """Consul finds a service by any case of its name."""
    top = root()
    leaf = leaf_of(top.leaf(service="WEB"))
    assert prove(leaf, bundle(top), service="web", datacenter="DC1", at=AT).leaf is leaf


def test_another_datacenter() -> None:
    top = root()
    assert refusal(leaf_of(top.leaf(datacenter="dc2")), bundle(top)) is CredentialsReason.WRONG_DATACENTER


def test_another_trust_domain() -> None:
    top = root(OTHER_TRUST_DOMAIN)
    trust = parse_roots(roots_answer(top, trust_domain=root().trust_domain))
    assert refusal(leaf_of(top.leaf()), trust) is CredentialsReason.WRONG_TRUST_DOMAIN


@pytest.mark.parametrize(
    ("offset", "reason"),
    [
        (timedelta(hours=72), CredentialsReason.EXPIRED),
        (timedelta(minutes=-2), CredentialsReason.NOT_YET_VALID),
    ],
)
def test_outside_the_window(offset: timedelta, reason: CredentialsReason) -> None:
    top = root()
    assert refusal(leaf_of(top.leaf()), bundle(top), at=AT + offset) is reason


def test_window_includes_its_first_moment_and_its_last_second() -> None:
    """At the last moment itself OpenSSL before 4.0 takes the leaf for expired."""
    top = root()
    leaf = leaf_of(top.leaf(not_before=AT, not_after=AT + DAY))
    for at in (AT, AT + DAY - timedelta(seconds=1)):
        assert prove(leaf, bundle(top), service="web", datacenter="dc1", at=at).leaf is leaf


@pytest.mark.parametrize("usages", [CLIENT_ONLY, SERVER_ONLY])
def test_leaf_for_one_end_only(usages: tuple[x509.ObjectIdentifier, ...]) -> None:
    top = root()
    leaf = leaf_of(top.leaf(usages=usages))
    assert refusal(leaf, bundle(top)) is CredentialsReason.WRONG_USAGE


def test_expired_intermediate() -> None:
    top = root()
    leaf = leaf_of(top.intermediate(lifetime=DAY).leaf())
    assert refusal(leaf, bundle(top), at=AT + 2 * DAY) is CredentialsReason.EXPIRED


def test_stranger_root() -> None:
    assert refusal(leaf_of(root().leaf()), bundle(root())) is CredentialsReason.UNTRUSTED_CHAIN


def test_stranger_that_does_not_name_its_issuers_key() -> None:
    assert refusal(leaf_of(root().leaf(bare=True)), bundle(root())) is CredentialsReason.UNTRUSTED_CHAIN


def test_too_long_a_path() -> None:
    top = root()
    leaf = leaf_of(top.intermediate().intermediate().leaf())
    assert refusal(leaf, bundle(top)) is CredentialsReason.INVALID_CHAIN


def test_missing_intermediate_is_told_from_a_stranger_by_the_announced_signer() -> None:
    top = root()
    second = top.intermediate()
    answer = roots_answer(top)
    answer["Roots"][0]["SigningKeyID"] = roots_answer(second)["Roots"][0]["SigningKeyID"]  # type: ignore[index]
    leaf = replace(leaf_of(second.leaf()), extra=())
    assert refusal(leaf, parse_roots(answer)) is CredentialsReason.MISSING_INTERMEDIATE
    assert refusal(leaf, bundle(top)) is CredentialsReason.UNTRUSTED_CHAIN


def test_a_leaf_is_retained_under_roots_that_vouch_for_it_as_it_is() -> None:
    top = root()
    leaf, roots = leaf_of(top.leaf()), bundle(root(), top)
    retained = retain(leaf, roots, AT)
    assert (retained.leaf, retained.bundle, retained.unfit) == (leaf, roots, "")
    assert retained.fault(AT) is None


@pytest.mark.parametrize(
    ("trust_domain", "why"), [(TRUST_DOMAIN, "untrusted_chain"), (OTHER_TRUST_DOMAIN, "wrong_trust_domain")]
)
def test_roots_that_do_not_vouch_for_our_leaf_are_in_force_all_the_same(trust_domain: str, why: str) -> None:
    leaf, roots = leaf_of(root().leaf()), bundle(root(trust_domain))
    retained = retain(leaf, roots, AT)
    assert retained.bundle is roots
    assert retained.unfit.startswith(f"{why}: ")
    fault = retained.fault(AT)
    assert fault is not None
    assert fault[0] is OwnFault.UNTRUSTED


def test_the_time_of_a_leaf_that_is_retained_is_told_as_it_goes() -> None:
    top = root()
    leaf, roots = leaf_of(top.leaf()), bundle(top)
    for at in (leaf.not_before - DAY, AT, leaf.not_after + DAY):
        assert retain(leaf, roots, at).unfit == ""
    retained = retain(leaf, roots, AT)
    assert retained.fault(leaf.not_after) is None
    fault = retained.fault(leaf.not_after + timedelta(seconds=1))
    assert fault is not None
    assert fault[0] is OwnFault.EXPIRED
