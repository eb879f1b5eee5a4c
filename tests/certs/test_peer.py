"""Every rule a peer can break after OpenSSL has let its chain through, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from certs.bundle import TrustBundle, parse_roots
from certs.peer import Peer, PeerReason, PeerRejected, verify_peer
from tests.certs.authority import (
    BACKDATED,
    OTHER_TRUST_DOMAIN,
    Issuer,
    Minted,
    der,
    roots_answer,
    service_uri,
)
from tests.certs.fitting import AT, RECORDED_AT, bundle, recorded_bundle, recorded_leaf, root

DAY = timedelta(days=1)


def chain(leaf: Minted, *above: Issuer) -> list[bytes]:
    return [der(leaf.certificate), *(der(issuer.certificate) for issuer in above)]


def refusal(chain_der: Sequence[bytes], trust: TrustBundle, at: datetime = AT) -> PeerReason:
    with pytest.raises(PeerRejected) as caught:
        verify_peer(chain_der, trust, at)
    return caught.value.reason


def test_a_service_of_our_trust_domain() -> None:
    top = root()
    peer = verify_peer(chain(top.leaf(service="db", datacenter="dc2"), top), bundle(top), AT)
    assert isinstance(peer, Peer)
    assert str(peer.id) == service_uri("db", "dc2")
    assert peer.serial == "0d"
    assert peer.root == bundle(top).active.fingerprint


def test_through_an_intermediate() -> None:
    top = root()
    second = top.intermediate()
    assert verify_peer(chain(second.leaf(), second, top), bundle(top), AT).root in bundle(top).fingerprints


def test_validity_ends_with_the_first_certificate_of_the_chain() -> None:
    top = root()
    second, brief = top.intermediate(), top.intermediate(lifetime=DAY)
    ends = [
        verify_peer(chain(issuer.leaf(), issuer, top), bundle(top), AT).not_after
        for issuer in (second, brief)
    ]
    assert ends == [AT - BACKDATED + 3 * DAY, AT - BACKDATED + DAY]


def test_a_leaf_that_was_seen_before_is_judged_anew() -> None:
    top = root()
    shown = chain(top.leaf(), top)
    verify_peer(shown, bundle(top), AT)
    assert refusal(shown, bundle(top), AT + 10 * 365 * DAY) is PeerReason.EXPIRED
    assert refusal(shown, bundle(root())) is PeerReason.UNTRUSTED_ROOT
    verify_peer(shown, bundle(top), AT)


def test_recorded_chain_of_a_secondary() -> None:
    leaf, trust = recorded_leaf("rotation-leaf2-1"), recorded_bundle("rotation-before-roots-dc1")
    path = [der(leaf.certificate), der(leaf.extra[0]), der(trust.active.certificate)]
    assert verify_peer(path, trust, RECORDED_AT).id.datacenter == "dc2"
    assert refusal(path, trust, RECORDED_AT + 4 * DAY) is PeerReason.EXPIRED


TOP = root()


@pytest.mark.parametrize(
    ("flaw", "reason"),
    [
        ({"uris": ()}, PeerReason.NO_URI),
        ({"uris": (), "dns": ("web.example",)}, PeerReason.NO_URI),
        ({"uris": (service_uri("web", "dc1"), service_uri("db", "dc1"))}, PeerReason.SEVERAL_URIS),
        ({"uris": ("https://web.example/",)}, PeerReason.INVALID_ID),
        ({"uris": (f"spiffe://{TOP.trust_domain}/agent/client/dc/dc1/id/n",)}, PeerReason.NOT_A_SERVICE),
        ({"uris": (f"spiffe://{TOP.trust_domain}",)}, PeerReason.NOT_A_SERVICE),
        ({"ca": True}, PeerReason.IS_A_CA),
        ({"signs": True}, PeerReason.IS_A_CA),
        ({"signs_crls": True}, PeerReason.IS_A_CA),
        ({"uris": (service_uri("web", "dc1", OTHER_TRUST_DOMAIN),)}, PeerReason.WRONG_TRUST_DOMAIN),
        ({"not_before": AT - 2 * DAY, "not_after": AT - DAY}, PeerReason.EXPIRED),
        ({"not_before": AT + DAY, "not_after": AT + 2 * DAY}, PeerReason.NOT_YET_VALID),
    ],
)
def test_flawed_leaves_are_named(flaw: dict[str, object], reason: PeerReason) -> None:
    leaf = TOP.leaf(**flaw)  # type: ignore[arg-type]
    assert refusal(chain(leaf, TOP), bundle(TOP)) is reason


def test_plainest_fault_is_named_first() -> None:
    leaf = TOP.leaf(uris=(), ca=True, not_after=AT - timedelta(seconds=1), not_before=AT - DAY)
    assert refusal(chain(leaf, root()), bundle(TOP)) is PeerReason.NO_URI


@pytest.mark.parametrize("broken", [(), (b"",), (b"\x30\x03\x02\x01\x01",)])
def test_unreadable_leaf(broken: tuple[bytes, ...]) -> None:
    assert refusal(broken, bundle(TOP)) is PeerReason.MALFORMED


def test_unreadable_intermediate() -> None:
    path = [der(TOP.leaf().certificate), b"junk", der(TOP.certificate)]
    assert refusal(path, bundle(TOP)) is PeerReason.MALFORMED


def test_window_includes_both_ends() -> None:
    leaf = TOP.leaf(not_before=AT, not_after=AT + DAY)
    for at in (AT, AT + DAY):
        assert verify_peer(chain(leaf, TOP), bundle(TOP), at).id.service == "web"
    assert refusal(chain(leaf, TOP), bundle(TOP), AT + DAY + timedelta(microseconds=1)) is PeerReason.EXPIRED


def test_expired_intermediate_and_intermediate_of_tomorrow() -> None:
    brief = TOP.intermediate(lifetime=DAY)
    assert refusal(chain(brief.leaf(), brief, TOP), bundle(TOP), AT + DAY) is PeerReason.EXPIRED
    early = TOP.at(AT + DAY).intermediate().at(AT)
    assert refusal(chain(early.leaf(), early, TOP), bundle(TOP)) is PeerReason.NOT_YET_VALID


def test_expired_root() -> None:
    brief = Issuer.root(now=AT, lifetime=DAY)
    assert refusal(chain(brief.leaf(), brief), bundle(brief), AT + 2 * DAY) is PeerReason.EXPIRED


def test_root_that_has_left_the_bundle() -> None:
    old, new = root(), root()
    path = chain(old.leaf(), old)
    assert verify_peer(path, bundle(new, old), AT).id.service == "web"
    assert refusal(path, bundle(new)) is PeerReason.UNTRUSTED_ROOT


def test_root_is_known_by_content_not_by_name() -> None:
    imitation = Issuer.root(now=AT, name=_common_name(TOP))
    assert refusal(chain(imitation.leaf(), imitation), bundle(TOP)) is PeerReason.UNTRUSTED_ROOT


def _common_name(issuer: Issuer) -> str:
    return issuer.certificate.subject.rfc4514_string().removeprefix("CN=")


def test_renewed_root_of_the_same_key_stands_in_for_the_expired_one() -> None:
    """OpenSSL, blind to dates in our contexts, may end the chain in the expired twin."""
    renewed = TOP.at(AT + DAY)
    twin = replace(renewed, certificate=renewed.cross_sign(renewed, lifetime=30 * DAY))
    expired = replace(TOP, certificate=TOP.cross_sign(TOP, lifetime=DAY))
    leaf, at = renewed.leaf(), AT + 2 * DAY
    trust = parse_roots(roots_answer(twin, expired))
    peer = verify_peer(chain(leaf, expired), trust, at)
    assert peer.root == trust.active.fingerprint
    assert refusal(chain(leaf, expired), bundle(expired), at) is PeerReason.EXPIRED


def test_another_path_is_sought_with_all_that_the_peer_sent_and_told_from_leaf_to_root() -> None:
    renewed = TOP.at(AT + DAY)
    twin = replace(renewed, certificate=renewed.cross_sign(renewed, lifetime=30 * DAY))
    expired = replace(TOP, certificate=TOP.cross_sign(TOP, lifetime=DAY))
    second = renewed.intermediate(path_length=1, lifetime=20 * DAY)
    third = second.intermediate(lifetime=10 * DAY)
    trust = parse_roots(roots_answer(twin, expired))
    peer = verify_peer(
        chain(third.leaf(not_after=AT + 25 * DAY), third, second, expired), trust, AT + 2 * DAY
    )
    assert peer.root == trust.active.fingerprint
    assert peer.not_after == renewed.now - BACKDATED + 10 * DAY


def test_leaf_without_usages_and_constraints_is_a_service_like_others() -> None:
    assert verify_peer(chain(TOP.leaf(bare=True), TOP), bundle(TOP), AT).id.service == "web"


def test_trust_domain_is_compared_without_case() -> None:
    leaf = TOP.leaf(uris=(service_uri("web", "dc1", TOP.trust_domain.upper()),))
    assert verify_peer(chain(leaf, TOP), bundle(TOP), AT).id.service == "web"


def test_costs_little(benchmark_seconds: Callable[[Callable[[], object]], float]) -> None:
    """Once per connection: a handshake is some 1500 µs, this is to stay a small part of it (measured: 37)."""
    second = TOP.intermediate()
    path, trust = chain(second.leaf(), second, TOP), bundle(TOP)
    assert benchmark_seconds(lambda: verify_peer(path, trust, AT)) < 500e-6
