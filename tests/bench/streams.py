"""Load of our own: streams of bytes in either direction, connections that only stand there, and a sample.

Sockets and large buffers, so that the kernel does the work and not the interpreter.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from tests.bench.pairs import Pair
from tests.bench.rig import SAMPLE, BenchFailed

_CHUNK = bytes(1 << 20)
_PATIENCE = 120  # seconds
_LAST = "Connection: close\r\n"


def down(pair: Pair, streams: int, mebibytes: int) -> float:
    """MB/s of that many downloads at once, `mebibytes` each."""
    return _together(streams, mebibytes, lambda: _download(pair, mebibytes))


def up(pair: Pair, streams: int, mebibytes: int) -> float:
    """MB/s of that many uploads at once, `mebibytes` each."""
    return _together(streams, mebibytes, lambda: _upload(pair, mebibytes))


def verify(pair: Pair) -> None:
    """Raise BenchFailed unless a sample of bytes arrives as it was sent."""
    with _connected(pair) as sock:
        sock.sendall(_request("GET", "/sample", _LAST))
        heard = bytearray()
        while data := sock.recv(1 << 16):
            heard += data
    if not heard.endswith(SAMPLE):
        raise BenchFailed(f"{pair.name}: a sample of {len(SAMPLE)} bytes did not arrive as it was sent")


@contextlib.contextmanager
def standing(pair: Pair, count: int) -> Iterator[None]:
    """That many connections which have carried one request, and carry nothing more."""
    with contextlib.ExitStack() as open_ones:
        for _ in range(count):
            sock = open_ones.enter_context(_connected(pair))
            sock.sendall(_request("GET", "/"))
            if not sock.recv(1 << 16):
                raise BenchFailed(f"{pair.name}: a connection was closed instead of answered")
        yield


def _together(streams: int, mebibytes: int, one: Callable[[], None]) -> float:
    with ThreadPoolExecutor(streams) as pool:
        started = time.perf_counter()
        for done in [pool.submit(one) for _ in range(streams)]:
            done.result(_PATIENCE)
    return streams * mebibytes * (1 << 20) / (time.perf_counter() - started) / 1e6


def _download(pair: Pair, mebibytes: int) -> None:
    buffer, heard = bytearray(1 << 20), 0
    with _connected(pair) as sock:
        sock.sendall(_request("GET", f"/zeros/{mebibytes}", _LAST))
        while size := sock.recv_into(buffer):
            heard += size
    if not 0 < heard - (mebibytes << 20) < 1024:  # the head of the answer
        raise BenchFailed(f"{pair.name}: {heard} bytes came of {mebibytes} MiB")


def _upload(pair: Pair, mebibytes: int) -> None:
    """The answer to the request behind the body says that the origin has read all of the body."""
    heard = bytearray()
    with _connected(pair) as sock:
        sock.sendall(_request("POST", "/sink", f"Content-Length: {mebibytes << 20}\r\n"))
        for _ in range(mebibytes):
            sock.sendall(_CHUNK)
        sock.sendall(_request("GET", "/", _LAST))
        while data := sock.recv(1 << 16):
            heard += data
    if not heard.endswith(b"x" * 1024):
        raise BenchFailed(f"{pair.name}: the origin did not get {mebibytes} MiB: {bytes(heard[-200:])!r}")


def _connected(pair: Pair) -> socket.socket:
    sock = socket.create_connection((pair.address, pair.port), timeout=_PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _request(method: str, path: str, headers: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: bench\r\n{headers}\r\n".encode()
