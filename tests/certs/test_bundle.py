"""Roots become one trust set, or a named reason why not."""

from __future__ import annotations

from typing import Any

import pytest

from certs.bundle import MOST_ROOTS, BundleReason, BundleRejected, parse_roots
from tests.certs.authority import TRUST_DOMAIN, pem, roots_answer
from tests.certs.fitting import bundle, root
from tests.recorded import body


def entries(answer: dict[str, Any]) -> list[dict[str, Any]]:
    roots: list[dict[str, Any]] = answer["Roots"]
    return roots


def test_active_and_retiring_roots_are_all_trusted() -> None:
    new, old = root(), root()
    trust = bundle(new, old)
    assert [entry.certificate for entry in trust.roots] == [new.certificate, old.certificate]
    assert trust.active.certificate == new.certificate
    assert trust.trust_domain.name == TRUST_DOMAIN
    assert trust.fingerprints == {entry.fingerprint for entry in trust.roots}
    assert trust.root(trust.roots[1].fingerprint) is trust.roots[1]
    assert trust.root("00") is None


def test_recorded_rotation_lists_two_roots_and_no_intermediates() -> None:
    before, after = (
        parse_roots(body("rotation-before-roots-dc2")),
        parse_roots(body("rotation-during-roots-dc2")),
    )
    assert (len(before.roots), len(after.roots)) == (1, 2)
    assert before.fingerprints < after.fingerprints
    assert after.active.fingerprint not in before.fingerprints
    intermediates = {
        text for entry in body("rotation-during-roots-dc2")["Roots"] for text in entry["IntermediateCerts"]
    }
    assert intermediates
    assert not intermediates & {entry.pem for entry in after.roots}


def test_datacenters_share_roots_and_differ_in_signing_keys() -> None:
    dc1, dc2 = parse_roots(body("rotation-before-roots-dc1")), parse_roots(body("rotation-before-roots-dc2"))
    assert dc1.same_trust(dc2)
    assert dc1.active.signing_key_id != dc2.active.signing_key_id


def test_order_of_the_answer_does_not_matter() -> None:
    answer: dict[str, Any] = roots_answer(root(), root())
    turned = {**answer, "Roots": entries(answer)[::-1]}
    assert parse_roots(answer).same_trust(parse_roots(turned))
    assert parse_roots(answer).active == parse_roots(turned).active


def test_other_indexes_are_the_same_trust_and_other_roots_are_not() -> None:
    one, other = root(), root()
    answer: dict[str, Any] = roots_answer(one)
    later = {**answer, "Roots": [{**entries(answer)[0], "ModifyIndex": 99}]}
    assert parse_roots(answer).same_trust(parse_roots(later))
    assert not bundle(one).same_trust(bundle(other))
    assert not bundle(one).same_trust(bundle(one, other))


def test_a_configuration_change_without_rotation_is_the_same_trust() -> None:
    first, second = (parse_roots(body(f"configchange-roots1-{n}")) for n in (1, 2))
    assert first.same_trust(second)


def test_same_roots_in_another_trust_domain_are_not_the_same_trust() -> None:
    one = root()
    elsewhere = parse_roots(roots_answer(one, trust_domain="other.consul"))
    assert not bundle(one).same_trust(elsewhere)


def test_roots_of_equal_content_are_taken_once_and_the_active_one_wins() -> None:
    answer: dict[str, Any] = roots_answer(root())
    twin = {**entries(answer)[0], "Active": False, "RootCert": entries(answer)[0]["RootCert"].strip()}
    trust = parse_roots({**answer, "Roots": [twin, *entries(answer), twin]})
    assert len(trust.roots) == 1
    assert trust.active.active


def test_serial_numbers_beyond_doubles_are_kept() -> None:
    answer: dict[str, Any] = roots_answer(root())
    entries(answer)[0]["SerialNumber"] = 2**64 - 1
    assert parse_roots(answer).active.serial == 2**64 - 1


@pytest.mark.parametrize(
    ("said", "kept"), [(0, 0), (1, 1), ((1 << 64) - 1, (1 << 64) - 1), (1 << 64, 0), (-1, 0)]
)
def test_a_serial_that_consul_cannot_mean_is_shown_as_none(said: int, kept: int) -> None:
    answer = roots_answer(root())
    entries(answer)[0]["SerialNumber"] = said
    assert parse_roots(answer).active.serial == kept


def test_a_root_is_shown_by_the_id_and_the_name_that_consul_gives_it() -> None:
    answer = roots_answer(root())
    entries(answer)[0].update(ID="0a:1b", Name="Consul CA Root Cert")
    assert (parse_roots(answer).active.id, parse_roots(answer).active.name) == (
        "0a:1b",
        "Consul CA Root Cert",
    )


def test_a_retiring_root_that_cannot_be_read_is_left_out_and_told() -> None:
    answer = roots_answer(root(), root())
    entries(answer)[1].update(ID="old", RootCert="nonsense")
    trust = parse_roots(answer)
    assert len(trust.roots) == 1
    (complaint,) = trust.unreadable
    assert complaint.startswith("root 'old': ")


@pytest.mark.parametrize("active", [True, False])
def test_no_root_that_can_be_read_is_no_bundle(active: bool) -> None:
    answer = roots_answer(root(), root())
    for entry in entries(answer):
        entry["RootCert"] = f"nonsense of {entry['ID']}"
    entries(answer)[0]["Active"] = active
    with pytest.raises(BundleRejected) as caught:
        parse_roots(answer)
    assert caught.value.reason is BundleReason.BAD_CERTIFICATE
    assert caught.value.detail.startswith(f"root {entries(answer)[0]['ID']!r}: ")


def test_an_unreadable_active_root_is_no_bundle_though_others_can_be_read() -> None:
    answer = roots_answer(root(), root())
    entries(answer)[0]["RootCert"] = "nonsense"
    with pytest.raises(BundleRejected) as caught:
        parse_roots(answer)
    assert caught.value.reason is BundleReason.BAD_CERTIFICATE


def test_root_text_without_final_newline_gets_one() -> None:
    answer: dict[str, Any] = roots_answer(root())
    entries(answer)[0]["RootCert"] = entries(answer)[0]["RootCert"].rstrip()
    assert parse_roots(answer).active.pem.endswith("-----\n")


def test_unknown_keys_are_ignored_and_trust_domain_is_lower_cased() -> None:
    answer = {**roots_answer(root()), "Novelty": [1], "TrustDomain": TRUST_DOMAIN.upper()}
    assert parse_roots(answer).trust_domain.name == TRUST_DOMAIN


def broken(**changes: object) -> dict[str, Any]:
    answer: dict[str, Any] = roots_answer(root())
    return {**answer, **changes}


def broken_root(**changes: object) -> dict[str, Any]:
    answer: dict[str, Any] = roots_answer(root())
    return {**answer, "Roots": [{**entries(answer)[0], **changes}]}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({}, BundleReason.MALFORMED),
        (broken(TrustDomain=7), BundleReason.MALFORMED),
        (broken(Roots={}), BundleReason.MALFORMED),
        (broken_root(RootCert=None), BundleReason.MALFORMED),
        (broken(TrustDomain="not a domain"), BundleReason.BAD_TRUST_DOMAIN),
        (broken(Roots=[]), BundleReason.NO_ROOTS),
        (broken(Roots=None), BundleReason.NO_ROOTS),
        (broken(Roots=[{"RootCert": ""}] * (MOST_ROOTS + 1)), BundleReason.TOO_MANY_ROOTS),
        (broken_root(RootCert=""), BundleReason.BAD_CERTIFICATE),
        (broken_root(RootCert=pem(root().certificate) * 2), BundleReason.BAD_CERTIFICATE),
        (broken_root(RootCert=pem(root().certificate).replace("M", "N", 3)), BundleReason.BAD_CERTIFICATE),
        (broken_root(Active=False), BundleReason.NO_ACTIVE_ROOT),
        (
            broken(Roots=[*entries(broken()), *entries(broken())]),
            BundleReason.SEVERAL_ACTIVE_ROOTS,
        ),
    ],
)
def test_unusable_answers_are_named(answer: dict[str, Any], reason: BundleReason) -> None:
    with pytest.raises(BundleRejected) as caught:
        parse_roots(answer)
    assert caught.value.reason is reason


def test_malformed_answer_names_the_path() -> None:
    with pytest.raises(BundleRejected, match=r"Roots\[0\]\.RootCert|`\$\.Roots\[0\]"):
        parse_roots(broken_root(RootCert=5))


def test_a_bundle_announces_who_signs_here() -> None:
    trusted = parse_roots(roots_answer(root()))
    assert trusted.announces(trusted.active.signing_key_id)
    assert not trusted.announces("0a:0b")
    assert not trusted.announces("")
