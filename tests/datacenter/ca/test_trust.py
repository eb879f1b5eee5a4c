"""What is trusted, and how it changes."""

from __future__ import annotations

import copy
from datetime import timedelta

import pytest

from certs.spiffe import TrustDomain
from datacenter.ca.trust import (
    Trust,
    followed,
    past_half_life,
    pruned,
    root_document,
    rotated,
    signed,
    trust_of_answer,
)
from tests.datacenter.mint import HOUR, NOW, YEAR, Primary, Secondary

OTHER = TrustDomain("99999999-0000-0000-0000-000000000000.consul")


def answer(trust: Trust) -> dict[str, object]:
    return {
        "TrustDomain": str(trust.trust_domain),
        "Roots": [root_document(root, trust.trust_domain) for root in trust.roots],
    }


def ids(trust: Trust) -> list[tuple[str, bool]]:
    return [(root.id, root.active) for root in trust.roots]


def test_rotation_leaves_exactly_one_active_and_remembers_when_the_other_went() -> None:
    primary = Primary()
    first = primary.trust.active
    primary.rotate(at=NOW)
    primary.rotate(at=NOW + HOUR)
    assert [root.active for root in primary.trust.roots] == [True, False, False]
    retired = primary.trust.find(first.id)
    assert retired is not None
    assert retired.rotated_out_at == NOW


def test_a_root_may_come_back() -> None:
    primary = Primary()
    first = primary.trust.active
    primary.rotate()
    again = rotated(primary.trust, first, NOW + HOUR)
    assert again.active == first
    assert len(again.roots) == 2


def test_retired_roots_go_after_their_time_and_the_active_one_never() -> None:
    primary = Primary()
    primary.rotate(at=NOW)
    keep = 144 * HOUR
    assert pruned(primary.trust, NOW + keep, keep) == primary.trust
    later = pruned(primary.trust, NOW + keep + timedelta(seconds=1), keep)
    assert later.roots == (primary.trust.active,)
    assert pruned(later, NOW + 10 * YEAR, keep) == later


def test_a_secondary_lists_the_primarys_root_with_its_own_intermediate() -> None:
    primary = Primary()
    secondary = Secondary(primary)
    ours, theirs = secondary.trust.active, primary.trust.active
    assert ours.id == theirs.id
    assert ours.signing_key_id != theirs.signing_key_id
    assert ours.signing_certificate != ours.certificate
    assert theirs.signing_certificate == theirs.certificate


def test_after_rotation_a_secondary_sends_cross_signature_then_intermediate() -> None:
    primary = Primary()
    secondary = Secondary(primary)
    primary.rotate()
    secondary.follow()
    bridge, own = secondary.trust.active.intermediates
    assert bridge == primary.trust.active.intermediates[0]
    assert own not in primary.trust.active.intermediates
    assert [root.active for root in secondary.trust.roots] == [True, False]
    # Consul's secondary keeps its own intermediate on the root that was rotated out (rotation-roots2-2).
    assert len(secondary.trust.roots[1].intermediates) == 1


def test_a_renewed_intermediate_joins_the_earlier_ones() -> None:
    secondary = Secondary(Primary())
    first = secondary.trust.active
    secondary.follow(at=NOW + HOUR)
    second = secondary.trust.active
    assert second.id == first.id
    assert second.intermediates[:-1] == first.intermediates
    assert second.signing_key_id != first.signing_key_id


def test_expired_intermediates_are_dropped_at_the_next_renewal() -> None:
    secondary = Secondary(Primary())
    secondary.follow(at=NOW + 2 * YEAR)
    assert len(secondary.trust.active.intermediates) == 1


def test_a_secondary_that_is_refused_trusts_the_new_root_and_signs_as_before() -> None:
    primary = Primary()
    secondary = Secondary(primary)
    primary.rotate()
    after = followed(secondary.trust, primary.trust, NOW)
    assert after.active == secondary.trust.active
    assert ids(after) == [(secondary.trust.active.id, True), (primary.trust.active.id, False)]
    assert pruned(after, NOW + 10 * YEAR, HOUR) == after  # it waits for its turn, it was not rotated out
    assert followed(after, primary.trust, NOW) == after


def test_a_root_missed_while_cut_off_is_trusted_for_its_time() -> None:
    primary = Primary()
    secondary = Secondary(primary)
    primary.rotate(at=NOW)
    primary.rotate(at=NOW + HOUR)
    secondary.follow(at=NOW + 2 * HOUR)
    assert [root.active for root in secondary.trust.roots] == [True, False, False]
    assert {root.rotated_out_at for root in secondary.trust.roots} == {None, NOW + 2 * HOUR}


def test_of_another_trust_domain_nothing_is_kept() -> None:
    own, primary = Primary(), Primary()
    foreign = Trust(trust_domain=OTHER, roots=own.trust.roots)
    intermediate = Secondary(primary).trust.active.intermediates[-1]
    joined = signed(foreign, primary.trust, intermediate, NOW)
    assert joined.trust_domain == primary.trust.trust_domain
    assert ids(joined) == ids(primary.trust)
    assert followed(foreign, primary.trust, NOW) == foreign


def test_an_intermediate_is_renewed_after_half_its_life() -> None:
    certificate = Secondary(Primary()).trust.active.signing_certificate
    assert not past_half_life(certificate, NOW + YEAR / 2 - HOUR)
    assert past_half_life(certificate, NOW + YEAR / 2 + HOUR)


def test_a_roots_answer_carries_the_trust() -> None:
    primary = Primary()
    primary.rotate()
    read = trust_of_answer(answer(primary.trust))
    assert ids(read) == ids(primary.trust)
    assert read.active == primary.trust.active


@pytest.mark.parametrize("kind", ["two active", "none active", "no list", "bad pem", "bad chain"])
def test_a_roots_answer_that_cannot_be_right_is_refused(kind: str) -> None:
    primary = Primary()
    primary.rotate()
    document = copy.deepcopy(answer(primary.trust))
    roots = document["Roots"]
    assert isinstance(roots, list)
    match kind:
        case "two active":
            roots[1]["Active"] = True
        case "none active":
            roots[0]["Active"] = False
        case "no list":
            del document["Roots"]
        case "bad pem":
            roots[0]["RootCert"] = "rubbish"
        case "bad chain":
            roots[0]["IntermediateCerts"] = ["rubbish"]
    with pytest.raises((KeyError, TypeError, ValueError)):
        trust_of_answer(document)
