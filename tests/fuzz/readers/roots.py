"""Whom we trust: any body of the roots endpoint, in which `{root}` and `{other}` stand for real certificates.

Refused by name, or read into a bundle of which TLS contexts can be made and in which every root is the one
that was answered.
"""

from __future__ import annotations

import json

from OpenSSL import crypto

from agent.consul.errors import ConsulError
from agent.consul.watch import AnswerRejected
from agent.control.watches import read_roots
from certs.bundle import MOST_ROOTS
from tests.certs.authority import Issuer, pem, roots_answer
from tests.fuzz.answered import asked, recorded, words_of
from tests.fuzz.mutators import json_with
from tests.fuzz.target import Target

_ROOT, _OTHER = Issuer.root(), Issuer.root()
_PLACES = {
    name: json.dumps(pem(issuer.certificate))[1:-1].encode()
    for name, issuer in ((b"{root}", _ROOT), (b"{other}", _OTHER))
}


def fuzz_one(data: bytes) -> None:
    """Read it as the watch does."""
    body = data
    for name, certificate in _PLACES.items():
        body = body.replace(name, certificate)
    try:
        bundle = read_roots(asked(lambda consul: consul.roots(), body))
    except (ConsulError, AnswerRejected):
        return
    assert 1 <= len(bundle.roots) <= MOST_ROOTS
    assert len(bundle.fingerprints) == len(bundle.roots)
    assert [root.active for root in bundle.roots].count(True) == 1
    assert bundle.same_trust(bundle)
    store = crypto.X509Store()
    for root in bundle.roots:
        store.add_cert(crypto.X509.from_cryptography(root.certificate))
        assert bundle.root(root.fingerprint) is root
        json.dumps([root.id, root.name, root.signing_key_id, root.serial, str(root.not_after)])


_ALL = json.dumps(roots_answer(_ROOT)).encode().replace(_PLACES[b"{root}"], b"{root}")
_TWO = _ALL.replace(b'"Roots": [', b'"Roots": [{"ID": "x", "RootCert": "{other}"}, ')
_RECORDED = recorded("roots-agent*", "rotation-before-roots-*")

TARGET = Target(
    fuzz_one=fuzz_one,
    seeds=(
        *(_ALL, _TWO, *_RECORDED, b"[" * 1200),
        _ALL.replace(b"{root}", b"{root}{root}"),
        _ALL.replace(b"{root}", b"{root}\\u0000"),
        _ALL.replace(b'"Active": true', b'"Active": ' + b"[" * 1200 + b"]" * 1200),
        _ALL.replace(b"{root}", b"\\ud800{root}"),
    ),
    words=(b"{root}", b"{other}", b"-----BEGIN CERTIFICATE-----\\n", b"-----END CERTIFICATE-----\\n"),
    mutate=json_with((*words_of(_ALL), "{root}", "{other}", "{root}{other}", " {root}", "{root}\0")),
    longest=8192,
)
