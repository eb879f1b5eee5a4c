"""Paths to a root through an unordered pool, at a time of our choosing."""

from __future__ import annotations

from datetime import timedelta

import pytest

from certs.chain import ChainBroken, ChainReason, reach
from tests.certs.authority import Issuer
from tests.certs.fitting import AT, RECORDED_AT, bundle, recorded_bundle, recorded_leaf, root

DAY = timedelta(days=1)


def reason_of(minted_by: Issuer, *trusted: Issuer, **options: object) -> ChainReason:
    leaf = minted_by.leaf()
    pool = options.get("pool", leaf.extra)
    at = options.get("at", AT)
    with pytest.raises(ChainBroken) as caught:
        reach(leaf.certificate, pool, bundle(*trusted), at)  # type: ignore[arg-type]
    return caught.value.reason


def test_path_holds_both_ends() -> None:
    top = root()
    second = top.intermediate()
    leaf = second.leaf()
    path = reach(leaf.certificate, leaf.extra, bundle(top), AT)
    assert path == (leaf.certificate, second.certificate, top.certificate)


def test_pool_is_not_a_path_after_a_rotation_in_a_secondary() -> None:
    old, new = root(), root()
    leaf = new.with_chain(old.cross_sign(new)).intermediate().leaf()
    assert leaf.extra[0].subject != leaf.certificate.issuer  # what makes it hard
    for trusted, length in ((old, 4), (new, 3)):
        path = reach(leaf.certificate, leaf.extra, bundle(trusted), AT)
        assert path[-1] == trusted.certificate
        assert len(path) == length


def test_expired_cross_signature_is_passed_by_when_the_new_root_is_trusted() -> None:
    old, new = root(), root()
    leaf = new.at(AT + 8 * DAY).with_chain(old.cross_sign(new)).leaf()
    at = AT + 8 * DAY
    assert reach(leaf.certificate, leaf.extra, bundle(new, old), at)[-1] == new.certificate
    with pytest.raises(ChainBroken) as caught:
        reach(leaf.certificate, leaf.extra, bundle(old), at)
    assert caught.value.reason is ChainReason.EXPIRED


# After one rotation both root sets succeed; a leaf of the second one bridges one step only
# (docs/consul-api.md#certificates).
@pytest.mark.parametrize(
    ("leaf", "roots", "kept"),
    [
        ("rotation-leaf1-1", "rotation-before-roots-dc1", ()),
        ("rotation-leaf2-1", "rotation-before-roots-dc1", ()),
        ("rotation-before-leaf-dc2", "rotation-before-roots-dc2", ()),
        ("rotation-leaf1-2", "rotation-during-roots-dc1", (0,)),
        ("rotation-leaf1-2", "rotation-during-roots-dc1", (1,)),
        ("rotation-leaf1-2", "rotation-during-roots-dc1", ()),
        ("rotation-leaf2-2", "rotation-during-roots-dc2", (0,)),
        ("rotation-leaf2-2", "rotation-during-roots-dc2", (1,)),
        ("rotation-leaf2-2", "rotation-during-roots-dc2", ()),
        ("rotation-during-leaf-nonblocking-dc1", "rotation-during-roots-dc2", (1,)),
        ("rotation2-leaf-dc1-nonblocking", "rotation2-roots-dc1", (1,)),
        ("rotation2-leaf-dc1-nonblocking", "rotation2-roots-dc1", (2,)),
        ("rotation2-leaf-dc2-nonblocking", "rotation2-roots-dc2", (1,)),
        ("rotation2-leaf-dc2-nonblocking", "rotation2-roots-dc2", (2,)),
        ("leaf-other-dc", "rotation-before-roots-dc1", ()),
    ],
)
def test_recorded_leaves_reach_recorded_roots(leaf: str, roots: str, kept: tuple[int, ...]) -> None:
    recorded, trust = recorded_leaf(leaf), recorded_bundle(roots, *kept)
    path = reach(recorded.certificate, recorded.extra, trust, RECORDED_AT)
    assert path[0] == recorded.certificate
    assert path[-1] in {entry.certificate for entry in trust.roots}


@pytest.mark.parametrize(
    ("leaf", "roots", "kept"),
    [
        ("rotation2-leaf-dc1-nonblocking", "rotation2-roots-dc1", (0,)),
        ("rotation2-leaf-dc2-nonblocking", "rotation2-roots-dc2", (0,)),
        ("rotation-leaf1-1", "rotation-during-roots-dc1", (1,)),
    ],
)
def test_recorded_leaves_fail_two_rotations_away(leaf: str, roots: str, kept: tuple[int, ...]) -> None:
    recorded = recorded_leaf(leaf)
    with pytest.raises(ChainBroken) as caught:
        reach(recorded.certificate, recorded.extra, recorded_bundle(roots, *kept), RECORDED_AT)
    assert caught.value.reason is ChainReason.UNTRUSTED_CHAIN


def test_a_root_of_the_same_trust_domain_is_not_enough() -> None:
    assert reason_of(root(), root()) is ChainReason.UNTRUSTED_CHAIN


def test_missing_intermediate_is_untrusted() -> None:
    top = root()
    assert reason_of(top.intermediate(), top, pool=()) is ChainReason.UNTRUSTED_CHAIN


def test_intermediates_of_the_pool_are_not_anchors() -> None:
    stranger = root()
    second = stranger.intermediate()
    pool = (second.certificate, stranger.certificate)
    assert reason_of(second, root(), pool=pool) is ChainReason.UNTRUSTED_CHAIN


def test_dates_are_judged_at_the_given_time() -> None:
    top = root()
    assert reason_of(top, top, at=AT + 4 * DAY) is ChainReason.EXPIRED
    assert reason_of(top, top, at=AT - DAY) is ChainReason.NOT_YET_VALID
    assert reason_of(top.intermediate(lifetime=DAY), top, at=AT + 2 * DAY) is ChainReason.EXPIRED


def test_path_length_is_enforced() -> None:
    top = root()
    assert reason_of(top.intermediate().intermediate(), top) is ChainReason.INVALID_CHAIN


def test_a_leaf_signs_nothing() -> None:
    top = root()
    middle = top.leaf()
    false_authority = Issuer(
        certificate=middle.certificate,
        key=middle.key,
        trust_domain=top.trust_domain,
        now=AT,
        chain=(middle.certificate,),
    )
    assert reason_of(false_authority, top) is ChainReason.INVALID_CHAIN


def test_detail_names_the_certificate() -> None:
    leaf = root().leaf(common_name="web.svc.default.11111111.consul")
    with pytest.raises(ChainBroken, match=r"web\.svc\.default"):
        reach(leaf.certificate, (), bundle(root()), AT)
