"""A root that an operator provides: its key alone, or key and certificate. No effects."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from cryptography import x509

from datacenter.ca.certificates import RequestRefused, check_external_root
from datacenter.ca.config import ConfigRefused, handed_in
from datacenter.ca.keys import SigningKey, load_key
from datacenter.ca.trust import Trust, parse_certificate


def successor(
    document: Mapping[str, Any], trust: Trust, at: datetime
) -> tuple[SigningKey, x509.Certificate | None] | tuple[None, None]:
    """Return key and root to rotate to, without a root if one is to be made; None for the active one.

    `document` is a decoded PUT body. Raises ConfigRefused, InvalidKey, RequestRefused.
    """
    key_text, root_text = handed_in(document)
    active = trust.active.certificate
    try:
        root = parse_certificate(root_text) if root_text else None
    except ValueError as error:
        raise ConfigRefused("error configuring provider: RootCert is not a PEM certificate") from error
    if not key_text:
        if root in {None, active}:
            return None, None
        raise ConfigRefused("error configuring provider: RootCert needs its PrivateKey")
    key = load_key(key_text)
    if root is not None:
        check_external_root(root, key, at)
        _check_distinct(root, trust)
    if key.public_key() == active.public_key() and root in {None, active}:
        return None, None
    return key, root


def _check_distinct(root: x509.Certificate, trust: Trust) -> None:
    """Require another name or key id than other roots have: verifiers find issuers by these."""
    for other in trust.roots:
        known = other.certificate
        alike = known.subject == root.subject and known.public_key() != root.public_key()
        if alike and not (_states_key_id(known) and _states_key_id(root)):
            text = "a root of the same name and another key is trusted; both need a subject key identifier"
            raise RequestRefused(text)


def _states_key_id(certificate: x509.Certificate) -> bool:
    try:
        certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return False
    return True
