"""Bytes of a socket on their way into a tunnel, read so that they lie as the TLS records in which they go.

A record is one DATA frame: the place of its head, and behind it what one read has put there. So the bytes of
bulk are copied by the kernel and by OpenSSL, and by no one between. All streams share the buffer: no byte in
it outlives a call.
"""

from __future__ import annotations

import socket

from agent.h2.frames import HEAD, HEAD_SIZE, MAX_FRAME, RECORD_FRAME

MOST = 8  # records of one read
_buffer = bytearray(MOST * MAX_FRAME)
_whole = memoryview(_buffer)
_places = [_whole[at + HEAD_SIZE : at + MAX_FRAME] for at in range(0, MOST * MAX_FRAME, MAX_FRAME)]


def read(sock: socket.socket, room: int) -> int:
    """Read into the places of as many whole frames as `room` allows, at least one; return how many bytes.

    Raises OSError.
    """
    return sock.recvmsg_into(_places[: room // RECORD_FRAME])[0]


def frames(stream: int, size: int) -> memoryview:
    """Return what was read, `size` bytes, as frames of that stream; to be sent before the next read."""
    full, rest = divmod(size, RECORD_FRAME)
    end = full * MAX_FRAME
    for at in range(0, end, MAX_FRAME):
        HEAD.pack_into(_buffer, at, RECORD_FRAME >> 8, RECORD_FRAME & 0xFF, 0, 0, stream)
    if rest:
        HEAD.pack_into(_buffer, end, rest >> 8, rest & 0xFF, 0, 0, stream)
        end += HEAD_SIZE + rest
    return _whole[:end]
