"""A sidecar of another mesh: it speaks TLS by a leaf for db that our roots know nothing of."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.certs.authority import Issuer


@contextmanager
def other_mesh() -> Iterator[int]:
    """Listen, and answer each handshake; the port."""
    minted = Issuer.root().leaf(service="db", datacenter="dc1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with TemporaryDirectory() as directory:
        file = Path(directory) / "leaf.pem"
        file.write_text(minted.cert_pem + minted.key_pem)
        context.load_cert_chain(file)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, context), daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _serve(listener: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        try:
            caller, _ = listener.accept()
        except OSError:  # the test is over
            return
        with caller, suppress(OSError):
            context.wrap_socket(caller, server_side=True).close()
