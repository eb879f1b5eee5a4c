"""Reads a handshake's TLS records off the socket one by one, so that OpenSSL has one at a time to read.

On the socket itself one `do_handshake` reads every record that has come: a ClientHello in records of one byte
was a single piece of work, 3 microseconds for each (docs/decisions.md#a-handshake-is-read-record-by-record).
"""

from __future__ import annotations

import socket
from contextlib import suppress

import trio
from OpenSSL import SSL
from OpenSSL._util import lib as openssl  # pyOpenSSL has no public call to give a connection its socket later

from certs.error_queue import forget_errors

HEADER = 5  # bytes: type, version, length (RFC 8446 §5.1)
MOST_BYTES = (1 << 14) + 2048  # of one record: RFC 5246 §6.2.3
MOST_RECORDS = 256  # of one handshake; a chain of 100 KB takes 200 at the smallest size of RFC 6066 §4
PIECE = 16  # records read before other tasks run, of some 20 microseconds each beside the cryptography
_TYPES = range(20, 24)  # change_cipher_spec, alert, handshake, application_data
_MAJOR = 3
_CHUNK = 16 << 10  # bytes asked of OpenSSL at once: more than most flights have


class TooManyRecords(Exception):
    """The handshake is not over after MOST_RECORDS records."""


class PeerClosed(Exception):
    """The stream has ended."""


class MemoryConnection(SSL.Connection):
    """A pyOpenSSL connection over memory, until `attach` gives it a socket."""

    def __init__(self, context: SSL.Context) -> None:
        """Raise MemoryError, or SSL.Error, if OpenSSL has no memory for it."""
        super().__init__(context, None)
        if not self._ssl:  # pyOpenSSL does not look at what SSL_new returns, and the next call would crash
            forget_errors()
            raise MemoryError("OpenSSL has no memory for a connection")

    def said(self) -> bytes:
        """Return what OpenSSL wants to send to the peer; empty if nothing."""
        chunks: list[bytes] = []
        with suppress(SSL.WantReadError):
            while not chunks or len(chunks[-1]) == _CHUNK:
                chunks.append(self.bio_read(_CHUNK))
        return b"".join(chunks)

    def attach(self, sock: socket.socket) -> None:
        """Read and write that socket from now on. Both memories must be empty, or their bytes are lost."""
        self._socket = sock
        self._into_ssl = self._from_ssl = None
        if openssl.SSL_set_fd(self._ssl, sock.fileno()) != 1:
            raise MemoryError("OpenSSL has no memory for a socket's BIO")


class RecordReader:
    """The records of one handshake. `waited`: a read has waited since this was set to False."""

    __slots__ = ("_sock", "heard", "taken", "waited")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.heard = False  # a byte has come
        self.taken = 0
        self.waited = False

    async def next(self) -> bytes:
        """Return the next record; only its header if OpenSSL will refuse that.

        Raises TooManyRecords, PeerClosed, OSError.
        """
        if self.taken == MOST_RECORDS:
            raise TooManyRecords
        self.taken += 1
        header = await self._read(HEADER)
        length = int.from_bytes(header[3:], "big")
        if header[0] not in _TYPES or header[1] != _MAJOR or length > MOST_BYTES:
            return header
        return header + await self._read(length)

    async def _read(self, size: int) -> bytes:
        """Read exactly `size` bytes: those after the handshake belong to the next reader of the socket."""
        read = self._some(size)
        while len(read) < size:
            await trio.lowlevel.wait_readable(self._sock)
            self.waited = True
            read += self._some(size - len(read))
        return read

    def _some(self, size: int) -> bytes:
        if not size:
            return b""
        try:
            data = self._sock.recv(size)
        except BlockingIOError:
            return b""
        if not data:
            raise PeerClosed
        self.heard = True
        return data
