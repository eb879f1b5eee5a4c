"""How the callers of the soak behave: each function is one connection to its end, with its bytes checked."""

from __future__ import annotations

import random
import socket
import struct
import time

from tests.bench.pairs import Pair
from tests.bench.rig import SAMPLE

_PATIENCE = 60  # seconds for anything at all to happen
_BODY = b"x" * 1024
_LINGER_NOTHING = struct.pack("ii", 1, 0)


class Unlike(Exception):
    """The bytes that came are not those that should."""


def idle(pair: Pair, rng: random.Random) -> None:
    """One request, and then nothing for long."""
    with _connected(pair) as sock:
        _ask(sock)
        time.sleep(rng.uniform(1, 20))


def converse(pair: Pair, rng: random.Random) -> None:
    """Requests with pauses between them."""
    with _connected(pair) as sock:
        for _ in range(rng.randint(2, 20)):
            _ask(sock)
            time.sleep(rng.uniform(0.1, 1.5))


def download_slowly(pair: Pair, rng: random.Random) -> None:
    """A mebibyte, read in small pieces by one who takes their time."""
    with _connected(pair, receive_buffer=32 * 1024) as sock:
        sock.sendall(_request("GET", "/sample", "Connection: close"))
        heard = bytearray()
        while data := sock.recv(16 * 1024):
            heard += data
            time.sleep(rng.uniform(0, 0.1))
    if not heard.endswith(SAMPLE):
        raise Unlike(f"{len(heard)} bytes of a sample, unlike it")


def upload(pair: Pair, rng: random.Random) -> None:
    """Some mebibytes, and the answer to a request behind them."""
    count = rng.randint(1, 4)
    with _connected(pair) as sock:
        sock.sendall(_request("POST", "/sink", f"Content-Length: {count << 20}"))
        for _ in range(count * 16):
            sock.sendall(SAMPLE[: 1 << 16])
            time.sleep(rng.uniform(0, 0.02))
        sock.sendall(_request("GET", "/", "Connection: close"))
        if not _all(sock).endswith(_BODY):
            raise Unlike("no answer behind an upload")


def half_close(pair: Pair, rng: random.Random) -> None:
    """A request, the end of our stream, and all of the answer."""
    with _connected(pair) as sock:
        sock.sendall(_request("GET", "/sample", "Connection: close"))
        sock.shutdown(socket.SHUT_WR)
        time.sleep(rng.uniform(0, 1))
        if not _all(sock).endswith(SAMPLE):
            raise Unlike("an answer behind a half-close, cut short")


def hang_up(pair: Pair, rng: random.Random) -> None:
    """A large download, reset in the middle."""
    with _connected(pair) as sock:
        sock.sendall(_request("GET", "/zeros/32"))
        for _ in range(rng.randint(0, 5)):
            sock.recv(1 << 16)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOTHING)


def stranger(pair: Pair, rng: random.Random) -> None:
    """No TLS at the server half's own door: whoever it is hears nothing."""
    assert pair.public is not None  # every pair of sidecars has one
    with socket.create_connection((pair.server, pair.public), timeout=_PATIENCE) as sock:
        time.sleep(rng.uniform(0, 0.2))
        try:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            heard = _all(sock)
        except ConnectionError:  # refused in the plainest way
            return
    if b"HTTP/" in heard:
        raise Unlike("a stranger was answered")


def _connected(pair: Pair, receive_buffer: int | None = None) -> socket.socket:
    sock = socket.socket()
    sock.settimeout(_PATIENCE)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    try:
        sock.connect((pair.address, pair.port))
    except BaseException:
        sock.close()
        raise
    return sock


def _ask(sock: socket.socket) -> None:
    sock.sendall(_request("GET", "/"))
    heard = bytearray()
    while not heard.endswith(_BODY):
        data = sock.recv(1 << 16)
        if not data:
            raise Unlike("closed instead of answered")
        heard += data


def _all(sock: socket.socket) -> bytes:
    heard = bytearray()
    while data := sock.recv(1 << 16):
        heard += data
    return bytes(heard)


def _request(method: str, path: str, header: str = "X-Soak: 1") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: bench\r\n{header}\r\n\r\n".encode()
