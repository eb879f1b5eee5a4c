"""nghttp2 as a peer: `nghttpx` makes its callers CONNECT streams, `nghttp` and `h2load` make requests.

All of them insist on ALPN over TLS, which a sidecar does not offer, and speak HTTP/2 with prior knowledge in
plain text. So HAProxy stands between, in TCP mode: it does the handshake, with the SNI of a tunnel.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.contract.federation import free_port
from tests.interop.holder import Holder
from tests.interop.mesh import until

PROGRAMS = ("haproxy", "nghttpx", "nghttp", "h2load")
SECONDS = 20.0
# HAProxy would hold the server's certificate to the SNI as a DNS name, of which a leaf has none.
_HAPROXY = """
defaults
  mode tcp
  timeout client 1m
  timeout connect 5s
  timeout server 1m
listen in
  bind 127.0.0.1:{port}
  server mesh 127.0.0.1:{mesh} ssl verify none crt {crt} sni str({sni})
"""


class Refused(Exception):
    """A proxy has not connected; the text is the head of its answer, in lower case."""


def missing() -> list[str]:
    """The programs that are not here."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


@contextmanager
def dialling(directory: Path, who: Holder, mesh_port: int, sni: str) -> Iterator[int]:
    """HAProxy: each connection to the port that is returned is a TLS connection to the mesh."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    combined, settings, port = directory / "combined.pem", directory / "haproxy.cfg", free_port()
    combined.touch(mode=0o600)
    combined.write_text(who.cert_pem + who.key_pem)
    settings.write_text(_HAPROXY.format(port=port, mesh=mesh_port, crt=combined, sni=sni))
    with _listening(["haproxy", "-db", "-f", str(settings)], port, directory / "haproxy.log"):
        yield port


@contextmanager
def proxy(directory: Path, backend: int) -> Iterator[int]:
    """nghttpx as a forward proxy: a CONNECT by HTTP/1.1 at its port is one by HTTP/2 at the backend."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    port = free_port()
    command = ["nghttpx", "--http2-proxy", "--workers=1", f"--frontend=127.0.0.1,{port};no-tls"]
    command += [f"--backend=127.0.0.1,{backend};;proto=h2", "--conf=/dev/null"]
    with _listening(command, port, directory / "nghttpx.log"):
        yield port


@contextmanager
def connected(port: int, name: str = "ours:443") -> Iterator[socket.socket]:
    """A connection through a forward proxy, once it has said that there is one. Raises Refused."""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as sock:
        sock.sendall(f"CONNECT {name} HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
        head = bytearray()
        while not head.endswith(b"\r\n\r\n") and (byte := sock.recv(1)):
            head += byte
        if not head.startswith(b"HTTP/1.1 200 "):
            raise Refused(head.decode("latin-1").lower())
        yield sock


def run(*command: str) -> str:
    """What a program prints; it is to end with 0."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def _listening(command: list[str], port: int, log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        until(partial(_listens, process, port, log), f"{command[0]} listens")
        yield
    finally:
        process.terminate()
        process.wait(timeout=10)


def _listens(process: subprocess.Popen[bytes], port: int, log: Path) -> bool:
    assert process.poll() is None, f"ended with {process.returncode}: {log.read_text()}"
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
