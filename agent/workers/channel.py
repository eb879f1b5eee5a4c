"""Frames, with descriptors, over one end of a unix socket pair between two processes of an agent.

A frame is its length and the number of its descriptors, then its bytes. The pair has no name, so a process
without an end can neither read nor write it, and the bytes exist in memory only.
"""

from __future__ import annotations

import os
import socket
import struct
from array import array
from collections import deque
from collections.abc import Sequence

import trio

MAX_FRAME = 64 << 20  # bytes
MOST_DESCRIPTORS = 8  # of one frame
_HEAD = struct.Struct("!IB")
_CHUNK = 256 << 10


class ChannelClosed(Exception):
    """The other end is gone, or has sent bytes that are no frame."""


class Channel:
    """One end. Any task may send; one task receives.

    The kernel closes descriptors beyond `most_descriptors` of a frame before this process has them.
    """

    def __init__(self, sock: socket.socket, *, most_descriptors: int = MOST_DESCRIPTORS) -> None:
        sock.setblocking(False)
        self._most = most_descriptors
        self._ancillary = socket.CMSG_SPACE(most_descriptors * array("i").itemsize) if most_descriptors else 0
        self._sock = sock
        self._sending = trio.StrictFIFOLock()
        self._buffer = bytearray()
        self._descriptors: deque[int] = deque()

    async def send(self, frame: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a frame; the caller keeps its descriptors. Raises ChannelClosed.

        Cancelling breaks the channel.
        """
        data = memoryview(_HEAD.pack(len(frame), len(descriptors)) + frame)
        async with self._sending:
            try:
                while data:
                    await trio.lowlevel.wait_writable(self._sock)
                    sent = self._send_some(data[:_CHUNK], descriptors)
                    descriptors = () if sent else descriptors  # descriptors go with the first byte
                    data = data[sent:]
            except OSError as error:
                raise ChannelClosed(error.strerror or str(error)) from error

    async def receive(self) -> tuple[bytes, list[int]]:
        """Return the next frame and its descriptors, which the caller closes. Raises ChannelClosed."""
        length, count = _HEAD.unpack(await self._take(_HEAD.size))
        if length > MAX_FRAME or count > self._most:
            raise ChannelClosed(f"no frame: {length} bytes, {count} descriptors")
        frame = await self._take(length)
        if len(self._descriptors) < count:
            raise ChannelClosed("descriptors are missing")
        return frame, [self._descriptors.popleft() for _ in range(count)]

    def close(self) -> None:
        """Close this end, and descriptors that came and were not received."""
        self._sock.close()
        while self._descriptors:
            os.close(self._descriptors.popleft())

    def _send_some(self, data: memoryview, descriptors: Sequence[int]) -> int:
        try:
            if descriptors:
                return socket.send_fds(self._sock, [data], list(descriptors))
            return self._sock.send(data)
        except BlockingIOError:
            return 0

    async def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await trio.lowlevel.wait_readable(self._sock)
            try:
                # socket.recv_fds drops its flags argument; MSG_CMSG_CLOEXEC keeps descriptors from outliving
                # an exec.
                data, ancillary, _, _ = self._sock.recvmsg(_CHUNK, self._ancillary, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                continue
            except OSError as error:
                raise ChannelClosed(error.strerror or str(error)) from error
            for level, kind, descriptors in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    self._descriptors += array("i", descriptors)
            if not data:
                raise ChannelClosed("the other end is gone")
            self._buffer += data
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken
