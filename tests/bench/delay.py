"""A link that takes its time: every frame that comes in at one interface leaves at the other so much later.

    python -m tests.bench.delay wan1 wan2 40        # milliseconds, each way
    python -m tests.bench.delay wan1 wan2 40 1      # and of a hundred frames one is lost, by chance

Stands between two network namespaces (tests.bench.sites), because not every kernel has netem. Whole Ethernet
frames are held back, so whatever two TCPs say to each other crosses late, the SYN and its answer too; a
forwarder of streams would accept at once and thereby hide the first round trip. Nothing is reordered or held
to a bandwidth, and nothing lost that was not asked for. Frames keep their checksum and segmentation state
(PACKET_VNET_HDR), as on a veth pair.
"""

from __future__ import annotations

import random
import select
import socket
import sys
import time
from collections import deque

_ALL_PROTOCOLS = 0x0003  # linux/if_ether.h, ETH_P_ALL
_SOL_PACKET, _PACKET_VNET_HDR = 263, 15  # linux/if_packet.h; Python has no names for them
_BUFFER = 1 << 24
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h; without it the kernel grants a few hundred frames
_LARGEST = 1 << 17  # a frame before segmentation, and its header
_IDLE = 60.0  # seconds


class End:
    """One interface, and the frames that came in there and are under way."""

    def __init__(self, interface: str) -> None:
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
        self.sock.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        self.sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        self.sock.bind((interface, _ALL_PROTOCOLS))
        self.sock.setblocking(False)
        self.under_way: deque[tuple[float, bytes]] = deque()

    def fileno(self) -> int:
        return self.sock.fileno()

    def take(self, due: float) -> None:
        """Everything that has arrived; what we sent out here ourselves comes back too, and is left."""
        while True:
            try:
                frame, address = self.sock.recvfrom(_LARGEST)
            except BlockingIOError:
                return
            if address[2] != socket.PACKET_OUTGOING:
                self.under_way.append((due, frame))


def forward(first: End, second: End, seconds: float, lost: float) -> None:
    """For ever; each frame is lost with that probability."""
    rng = random.Random(1)
    pairs = ((first, second), (second, first))
    while True:
        now = time.monotonic()
        for come, go in pairs:
            while come.under_way and come.under_way[0][0] <= now:
                frame = come.under_way.popleft()[1]
                if rng.random() >= lost:
                    go.sock.send(frame)
        due = min((end.under_way[0][0] for end in (first, second) if end.under_way), default=now + _IDLE)
        ready, _, _ = select.select([first, second], [], [], max(0.0, due - time.monotonic()))
        for end in ready:
            end.take(time.monotonic() + seconds)


if __name__ == "__main__":
    percent = float(sys.argv[4]) if len(sys.argv) > 4 else 0.0
    forward(End(sys.argv[1]), End(sys.argv[2]), float(sys.argv[3]) / 1000, percent / 100)
