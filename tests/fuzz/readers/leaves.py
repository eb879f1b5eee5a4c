"""Who we are: any body of the leaf endpoint, in which words in braces stand for real certificates and keys.

Refused by name, at the latest when it is to be proven, or made into TLS contexts: what has been proven has
to be fit to serve.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from agent.consul.errors import ConsulError
from agent.consul.watch import AnswerRejected
from agent.control.watches import read_leaf
from certs.bundle import parse_roots
from certs.contexts import build_contexts
from certs.credentials import CredentialsRejected, prove
from certs.leaf import handed_on, parse_leaf
from tests.certs.authority import Issuer, pem, roots_answer
from tests.fuzz.answered import asked, words_of
from tests.fuzz.mutators import json_with
from tests.fuzz.target import Target

_ROOT = Issuer.root()
_SECOND = _ROOT.intermediate()
_BUNDLE = parse_roots(roots_answer(_ROOT))


def _written(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> str:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def _places() -> dict[str, str]:
    """What the words stand for, in this process alone."""
    own, second, expired = (
        _ROOT.leaf(),
        _SECOND.leaf(),
        _ROOT.leaf(not_after=datetime(2020, 1, 1, tzinfo=UTC), not_before=datetime(2019, 1, 1, tzinfo=UTC)),
    )
    return {
        "{leaf}": pem(own.certificate),
        "{key}": own.key_pem,
        "{second}": second.cert_pem,
        "{second-key}": second.key_pem,
        "{expired}": expired.cert_pem,
        "{expired-key}": expired.key_pem,
        "{authority}": pem(_ROOT.certificate),
        "{other}": pem(Issuer.root().leaf().certificate),
        "{no-uri}": pem(_ROOT.leaf(uris=()).certificate),
        "{ed25519-key}": _written(ed25519.Ed25519PrivateKey.generate()),
        "{p384-key}": _written(ec.generate_private_key(ec.SECP384R1())),
    }


_PLACES = {name.encode(): json.dumps(text)[1:-1].encode() for name, text in _places().items()}


def fuzz_one(data: bytes) -> None:
    """Read it as the watch does, prove it as the rotation does, serve by it."""
    body = data
    for name, text in _PLACES.items():
        body = body.replace(name, text)
    try:
        leaf = read_leaf(asked(lambda consul: consul.leaf("web"), body))
    except (ConsulError, AnswerRejected) as refused:
        assert "PRIVATE" not in str(refused)
        return
    again = parse_leaf(*handed_on(leaf))
    assert again == leaf
    assert len(leaf.serial) % 3 == 2
    try:
        credentials = prove(leaf, _BUNDLE, service="web", datacenter="dc1", at=_ROOT.now)
    except CredentialsRejected:
        return
    build_contexts(credentials, 1)


_ALL = b'{"CertPEM": "{leaf}", "PrivateKeyPEM": "{key}", "Service": "web", "CreateIndex": 20}'

TARGET = Target(
    fuzz_one=fuzz_one,
    seeds=(
        _ALL,
        _ALL.replace(b"{leaf}", b"{leaf}{authority}{other}"),
        b'{"CertPEM": "{second}", "PrivateKeyPEM": "{second-key}"}',
        b'{"CertPEM": "{expired}", "PrivateKeyPEM": "{expired-key}"}',
        b'{"CertPEM": "{leaf}", "PrivateKeyPEM": "{ed25519-key}"}',
        b'{"CertPEM": "{no-uri}", "PrivateKeyPEM": "{p384-key}"}',
        _ALL.replace(b"{leaf}", b"{leaf}" * 33),
        _ALL.replace(b"20", b"[" * 1200 + b"]" * 1200),
        _ALL.replace(b"{key}", b"\\ud800"),
        b'{"CertPEM": "\xff", "PrivateKeyPEM": ""}',
    ),
    words=tuple(_PLACES),
    mutate=json_with((*words_of(_ALL), *(name.decode() for name in _PLACES))),
    longest=4096,
)
