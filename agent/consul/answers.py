"""What the Consul agent answers about the mesh: a leaf, and whether a caller may call."""

from __future__ import annotations

import msgspec


class AuthorizeAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    """Whether the agent lets a caller call a service, and why."""

    authorized: bool
    reason: str = ""


class LeafAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    """A leaf and its key as Consul returns them. Its repr shows no key."""

    cert_pem: str = msgspec.field(name="CertPEM")
    private_key_pem: str = msgspec.field(name="PrivateKeyPEM")

    def __repr__(self) -> str:
        return "LeafAnswer(...)"
