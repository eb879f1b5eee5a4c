"""What a contestant's server half really agrees to: asked by a handshake of our own, not assumed.

The question is put with the client leaf and with everything this OpenSSL offers, so the answer is what the
server half prefers; its own client half may offer less.
"""

from __future__ import annotations

import socket
import subprocess
from dataclasses import dataclass

from OpenSSL import SSL

from tests.bench.rig import Identity

_SECONDS = 5
_TICKET = "New Session Ticket arrived"


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """The parameters of one live handshake. `tickets`: how many chances to resume the server handed out."""

    version: str
    cipher: str
    group: str
    tickets: int

    def __str__(self) -> str:
        return f"{self.version}, {self.cipher}, {self.group}, session tickets: {self.tickets}"


def agreed(address: str, port: int, client: Identity) -> Agreed:
    """Shake hands with a server half; raises OpenSSL's or the socket's error if it will not."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.use_certificate_chain_file(str(client.chain))
    context.use_privatekey_file(str(client.key))
    context.load_verify_locations(str(client.bundle))
    context.set_verify(SSL.VERIFY_PEER)
    context.set_tls13_ciphersuites(b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384")
    with socket.create_connection((address, port), timeout=_SECONDS) as sock:
        sock.setblocking(True)
        connection = SSL.Connection(context, sock)
        connection.set_connect_state()
        connection.do_handshake()
        return Agreed(
            version=connection.get_protocol_version_name(),
            cipher=connection.get_cipher_name() or "?",
            group=connection.get_group_name() or "?",
            tickets=_tickets(address, port, client),
        )


def _tickets(address: str, port: int, client: Identity) -> int:
    command = [
        "openssl", "s_client", "-connect", f"{address}:{port}", "-tls1_3", "-ign_eof", "-msg",
        "-cert", str(client.chain), "-key", str(client.key), "-CAfile", str(client.bundle),
    ]  # fmt: skip
    request = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
    said = subprocess.run(command, input=request, capture_output=True, check=False, timeout=_SECONDS)
    return said.stdout.decode(errors="replace").count(_TICKET)
