"""Python's own `ssl` as a peer, on the interpreter's OpenSSL, which is not the one the sidecar uses."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.interop.holder import Files

SECONDS = 20.0
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def context(files: Files, *, server: bool, version: str = "1.3") -> ssl.SSLContext:
    """A context with the files' identity, which demands a certificate and knows nothing of SPIFFE."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.maximum_version = _VERSIONS[version]
    made.load_cert_chain(files.full, files.key)
    made.load_verify_locations(files.roots)
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One finished call. `uris` are the URI names of the peer's certificate."""

    received: bytes
    version: str | None
    uris: tuple[str, ...]
    session: ssl.SSLSession | None
    session_reused: bool | None


def call(tls: ssl.SSLContext, port: int, sends: bytes, session: ssl.SSLSession | None = None) -> Call:
    """Send, read as much as was sent, close in both directions; offer a session of an earlier call."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as sock,
        tls.wrap_socket(sock, server_hostname="peer.consul", session=session) as connection,
    ):
        connection.sendall(sends)
        received = b""
        while len(received) < len(sends) and (part := connection.recv(65536)):
            received += part
        names = (connection.getpeercert() or {}).get("subjectAltName", ())
        made = Call(
            received=received,
            version=connection.version(),
            uris=tuple(str(pair[1]) for pair in names if pair[0] == "URI"),
            session=connection.session,
            session_reused=connection.session_reused,
        )
        connection.unwrap().close()
        return made


@contextmanager
def shouting(tls: ssl.SSLContext) -> Iterator[int]:
    """A server that sends back what it gets in upper case, one caller after the other; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()
        thread = threading.Thread(target=_serve, args=(listener, tls, ended), daemon=True)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            ended.set()
            socket.create_connection(listener.getsockname(), timeout=SECONDS).close()
            thread.join(SECONDS)


def _serve(listener: socket.socket, tls: ssl.SSLContext, ended: threading.Event) -> None:
    while True:
        sock, _ = listener.accept()
        if ended.is_set():
            sock.close()
            return
        with sock:
            sock.settimeout(SECONDS)
            try:
                with tls.wrap_socket(sock, server_side=True) as connection:
                    _shout(connection)
            except (ssl.SSLError, OSError):
                continue  # refused, by one side or the other: the tests look at the sidecar for it


def _shout(connection: ssl.SSLSocket) -> None:
    while part := connection.recv(65536):
        connection.sendall(part.upper())
    connection.unwrap().close()
