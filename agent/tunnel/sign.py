"""The sign by which a client says that its TLS connection is a tunnel: the first label of its SNI.

The server reads it after the handshake, so no callback of OpenSSL is needed (docs/decisions.md), and a client
that is not ours can be told to send it. Nothing is guessed from the bytes that follow.
"""

from __future__ import annotations

LABEL = "tunnel-v1"


def marked(server_name: str) -> str:
    """Return the SNI of a tunnel to the service of that SNI."""
    return f"{LABEL}.{server_name}"


def is_marked(server_name: bytes | None, service: str) -> bool:
    """Return whether the SNI is that of a tunnel. A service that is itself called so has none."""
    if server_name is None or service.lower() == LABEL:
        return False
    return server_name.lower().startswith(f"{LABEL}.".encode())
