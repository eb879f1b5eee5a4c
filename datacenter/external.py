"""A root that an operator hands in: its key alone, or key and certificate from elsewhere. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from cryptography import x509

from datacenter.authority import check_external_root
from datacenter.ca_config import ConfigRefused, handed_in
from datacenter.keys import SigningKey, load_key
from datacenter.trust import parse_certificate


def successor(
    document: Mapping[str, Any], active: x509.Certificate, at: datetime
) -> tuple[SigningKey, x509.Certificate | None] | tuple[None, None]:
    """The key and root to rotate to, no root where one is to be made; nothing when it is `active`.

    `document` is a decoded PUT body. Raises ConfigRefused, InvalidKey or RequestRefused.
    """
    key_text, root_text = handed_in(document)
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
    if key.public_key() == active.public_key() and root in {None, active}:
        return None, None
    return key, root
