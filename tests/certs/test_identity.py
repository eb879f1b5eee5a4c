"""Which service a certificate names, and each way of naming none."""

from __future__ import annotations

import pytest

from certs.identity import IdentityReason, NoIdentity, service_of
from tests.certs.authority import OTHER_TRUST_DOMAIN, TRUST_DOMAIN, service_uri
from tests.certs.fitting import root

WEB = service_uri("web", "dc1")


def test_reads_the_sole_uri() -> None:
    assert str(service_of(root().leaf(service="web").certificate)) == WEB


def test_other_kinds_of_names_are_left_alone() -> None:
    assert service_of(root().leaf(dns=["web.example", "other.example"]).certificate).service == "web"


def test_empty_subject_with_critical_names_is_read() -> None:
    assert service_of(root().leaf(common_name=None).certificate).service == "web"


def test_unreadable_extensions_are_malformed() -> None:
    certificate = root().leaf(usages=()).certificate  # an empty list, which the grammar forbids
    with pytest.raises(NoIdentity) as caught:
        service_of(certificate)
    assert caught.value.reason is IdentityReason.MALFORMED


@pytest.mark.parametrize(
    ("uris", "dns", "reason"),
    [
        ([], [], IdentityReason.NO_URI),
        ([], ["web.example"], IdentityReason.NO_URI),
        ([WEB, service_uri("db", "dc1")], [], IdentityReason.SEVERAL_URIS),
        ([WEB, WEB], [], IdentityReason.SEVERAL_URIS),
        (["https://example.org/web"], [], IdentityReason.INVALID_ID),
        ([f"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/a%2fb"], [], IdentityReason.INVALID_ID),
        ([f"spiffe://{TRUST_DOMAIN}"], [], IdentityReason.NOT_A_SERVICE),
        ([f"spiffe://{TRUST_DOMAIN}/agent/client/dc/dc1/id/x"], [], IdentityReason.NOT_A_SERVICE),
        ([f"spiffe://{OTHER_TRUST_DOMAIN}/gateway/mesh/dc/dc1"], [], IdentityReason.NOT_A_SERVICE),
    ],
)
def test_names_no_service(uris: list[str], dns: list[str], reason: IdentityReason) -> None:
    certificate = root().leaf(uris=uris, dns=dns).certificate
    with pytest.raises(NoIdentity) as caught:
        service_of(certificate)
    assert caught.value.reason is reason
