"""What an operator hands in: a key, a root with its key, or something else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from datacenter.ca.certificates import RequestRefused, certificate_pem
from datacenter.ca.config import ConfigRefused
from datacenter.ca.external_root import successor
from datacenter.ca.keys import InvalidKey, KeyKind, generate_key, key_pem
from datacenter.ca.trust import new_root
from tests.datacenter.mint import NOW, Primary, external_root

KEY = generate_key(KeyKind("ec", 384))
ROOT = external_root(KEY)
ACTIVE = Primary()


def handed(**config: str) -> dict[str, Any]:
    return {"Provider": "consul", "Config": config}


def test_a_key_alone_is_for_a_root_made_here() -> None:
    key, root = successor(handed(PrivateKey=key_pem(KEY)), ACTIVE.trust, NOW)
    assert key is not None
    assert (key.public_key(), root) == (KEY.public_key(), None)


def test_a_root_from_elsewhere_comes_with_its_key() -> None:
    document = handed(PrivateKey=key_pem(KEY), RootCert=certificate_pem(ROOT))
    key, root = successor(document, ACTIVE.trust, NOW)
    assert key is not None
    assert root == ROOT
    in_force = replace(ACTIVE.trust, roots=(new_root(certificate_pem(ROOT)),))
    assert successor(document, in_force, NOW) == (None, None)


@pytest.mark.parametrize("named", [True, False])
def test_two_roots_of_one_name_need_key_identifiers(named: bool) -> None:
    """Without, OpenSSL takes the first it finds for the issuer: a signature failure, or not, by chance."""
    other = external_root(generate_key(), key_id=named)
    document = handed(PrivateKey=key_pem(KEY), RootCert=certificate_pem(external_root(KEY, key_id=named)))
    trust = replace(
        ACTIVE.trust, roots=(*ACTIVE.trust.roots, replace(new_root(certificate_pem(other)), active=False))
    )
    if named:
        assert successor(document, trust, NOW)[0] is not None
        return
    with pytest.raises(RequestRefused, match="same name and another key"):
        successor(document, trust, NOW)


@pytest.mark.parametrize("config", [{}, {"RootCert": ACTIVE.trust.active.pem}])
def test_nothing_new(config: dict[str, str]) -> None:
    assert successor(handed(**config), ACTIVE.trust, NOW) == (None, None)
    own = handed(PrivateKey=key_pem(ACTIVE.key), **config)
    assert successor(own, ACTIVE.trust, NOW) == (None, None)


@pytest.mark.parametrize(
    ("config", "refusal"),
    [
        ({"RootCert": "x", "PrivateKey": key_pem(KEY)}, ConfigRefused),
        ({"RootCert": certificate_pem(ROOT)}, ConfigRefused),
        ({"PrivateKey": "x"}, InvalidKey),
        ({"PrivateKey": key_pem(generate_key()), "RootCert": certificate_pem(ROOT)}, RequestRefused),
    ],
)
def test_what_cannot_be_taken(config: dict[str, str], refusal: type[Exception]) -> None:
    with pytest.raises(refusal):
        successor(handed(**config), ACTIVE.trust, NOW)
