"""What an operator hands in: a key, a root with its key, or something else."""

from __future__ import annotations

from typing import Any

import pytest

from datacenter.authority import RequestRefused, certificate_pem
from datacenter.ca_config import ConfigRefused
from datacenter.external import successor
from datacenter.keys import InvalidKey, KeyKind, generate_key, key_pem
from tests.datacenter.mint import NOW, Primary, external_root

KEY = generate_key(KeyKind("ec", 384))
ROOT = external_root(KEY)
ACTIVE = Primary()


def handed(**config: str) -> dict[str, Any]:
    return {"Provider": "consul", "Config": config}


def test_a_key_alone_is_for_a_root_made_here() -> None:
    key, root = successor(handed(PrivateKey=key_pem(KEY)), ACTIVE.trust.active.certificate, NOW)
    assert key is not None
    assert (key.public_key(), root) == (KEY.public_key(), None)


def test_a_root_from_elsewhere_comes_with_its_key() -> None:
    document = handed(PrivateKey=key_pem(KEY), RootCert=certificate_pem(ROOT))
    key, root = successor(document, ACTIVE.trust.active.certificate, NOW)
    assert key is not None
    assert root == ROOT
    assert successor(document, ROOT, NOW) == (None, None), "it is in force already"


@pytest.mark.parametrize("config", [{}, {"RootCert": ACTIVE.trust.active.pem}])
def test_nothing_new(config: dict[str, str]) -> None:
    assert successor(handed(**config), ACTIVE.trust.active.certificate, NOW) == (None, None)
    own = handed(PrivateKey=key_pem(ACTIVE.key), **config)
    assert successor(own, ACTIVE.trust.active.certificate, NOW) == (None, None)


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
        successor(handed(**config), ACTIVE.trust.active.certificate, NOW)
