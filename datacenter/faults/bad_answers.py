"""Answers about leaf and roots that no sidecar may accept, each wrong in one way."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from certs.spiffe import ServiceId, TrustDomain, parse
from datacenter.ca.authority import CertificateAuthority
from datacenter.ca.certificates import (
    Signer,
    certificate_pem,
    intermediate_request,
    make_root,
    sign_intermediate,
    sign_leaf,
)
from datacenter.ca.keys import generate_key, key_pem
from datacenter.http.context import Datacenter
from datacenter.state.switches import Corruption

ELSEWHERE = TrustDomain("00000000-0000-4000-8000-000000000000.consul")

_HOUR = timedelta(hours=1)
_OVERSIZE = 200  # certificates

Answer = dict[str, Any]


def corrupted(dc: Datacenter, how: Corruption, path: str, body: bytes) -> bytes:
    """Return the body of a 200, corrupted if it is that of the endpoint in question."""
    if path.startswith("/v1/agent/connect/ca/leaf/"):
        if how is Corruption.TRUNCATED_JSON:
            return body[: len(body) // 2]
        maker = _LEAVES.get(how)
        return body if maker is None else json.dumps(maker(_Mint(dc), json.loads(body))).encode()
    if path == "/v1/agent/connect/ca/roots" and how is Corruption.EMPTY_ROOTS:
        return json.dumps(json.loads(body) | {"ActiveRootID": "", "Roots": []}).encode()
    return body


class _Mint:
    """Makes leaves that the authority would never issue."""

    def __init__(self, dc: Datacenter) -> None:
        self._dc = dc
        self.signer = CertificateAuthority(dc).signer()

    def leaf(
        self,
        answer: Answer,
        signer: Signer | None = None,
        *,
        shift: timedelta = timedelta(0),
        extra: bool = True,
        other: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Return the answer with another leaf: of another signer, another time, or another identity."""
        key = ec.generate_private_key(ec.SECP256R1())
        identity = parse(answer["ServiceURI"])
        assert isinstance(identity, ServiceId)  # leaves name services
        certificate = sign_leaf(
            key.public_key(),
            signer or self.signer,
            identity=replace(identity, **(other or {})),
            serial=self._dc.rng.getrandbits(62),
            at=self._dc.clock() + shift,
            ttl=_HOUR,
        )
        intermediates = CertificateAuthority(self._dc).require_trust().active.intermediates
        text = "".join([certificate_pem(certificate), *(intermediates if extra else ())])
        return answer | {"CertPEM": text, "PrivateKeyPEM": key_pem(key)}

    def stranger(self) -> Signer:
        """Return a root that no bundle has."""
        key = generate_key()
        domain = CertificateAuthority(self._dc).require_trust().trust_domain
        root = make_root(key, trust_domain=domain, serial=1, uid="stranger", at=self._dc.clock())
        return Signer(certificate=root, key=key)

    def unannounced(self) -> Signer:
        """Return an intermediate that is not sent along; a secondary's own is one already."""
        if not self._dc.settings.is_primary:
            return self.signer
        key = generate_key()
        domain = CertificateAuthority(self._dc).require_trust().trust_domain
        certificate = sign_intermediate(
            intermediate_request(key, trust_domain=domain),
            self.signer,
            trust_domain=domain,
            serial=self._dc.rng.getrandbits(62),
            at=self._dc.clock(),
            ttl=_HOUR,
        )
        return Signer(certificate=certificate, key=key)


def _wrong_key(_mint: _Mint, answer: Answer) -> Answer:
    return answer | {"PrivateKeyPEM": key_pem(generate_key())}


def _garbage(_mint: _Mint, answer: Answer) -> Answer:
    return answer | {"CertPEM": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}


def _oversized(mint: _Mint, answer: Answer) -> Answer:
    return answer | {"CertPEM": answer["CertPEM"] + certificate_pem(mint.signer.certificate) * _OVERSIZE}


_LEAVES: dict[Corruption, Callable[[_Mint, Answer], Answer]] = {
    Corruption.WRONG_KEY: _wrong_key,
    Corruption.FOREIGN_CHAIN: lambda mint, answer: mint.leaf(answer, mint.stranger()),
    Corruption.MISSING_INTERMEDIATE: lambda mint, answer: mint.leaf(answer, mint.unannounced(), extra=False),
    Corruption.EXPIRED: lambda mint, answer: mint.leaf(answer, shift=-2 * _HOUR),
    Corruption.NOT_YET_VALID: lambda mint, answer: mint.leaf(answer, shift=2 * _HOUR),
    Corruption.WRONG_SERVICE: lambda mint, answer: mint.leaf(answer, other={"service": "somebody-else"}),
    Corruption.WRONG_DATACENTER: lambda mint, answer: mint.leaf(answer, other={"datacenter": "elsewhere"}),
    Corruption.WRONG_TRUST_DOMAIN: lambda mint, answer: mint.leaf(answer, other={"trust_domain": ELSEWHERE}),
    Corruption.GARBAGE_PEM: _garbage,
    Corruption.OVERSIZED_CHAIN: _oversized,
}
