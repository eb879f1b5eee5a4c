"""What a tunnel is to its streams, and its streams to a tunnel."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from agent.h2.connection import H2Connection
from agent.h2.stream import Stream
from agent.relay.relay import Relay


class Sender(Protocol):
    """What waits for a tunnel to take bytes."""

    def resume(self) -> None:
        """Send again from now on."""


class Fed(Protocol):
    """What has something to write, or to end."""

    def deliver(self) -> None:
        """Write what has come, and its end; called once the tunnel has read what there is."""


class Carrier(Protocol):
    """The part of a tunnel that its streams use."""

    h2: H2Connection
    relay: Relay
    waiting: deque[Sender]  # those that wait for the tunnel to take bytes, the first to wait first
    fed: list[Fed]  # those that have something to write, or to end, once the tunnel has read

    @property
    def congested(self) -> bool:
        """Whether no stream is to be read for now."""

    def stream_over(self) -> None:
        """Note that a stream has ended."""

    def wake(self) -> None:
        """Send what the machine has queued, at the end of the turn."""

    def fail(self, error: Exception, /) -> None:
        """End the tunnel for a bug that no stream can be ended for any more."""

    def send_records(self, stream: Stream, size: int, /) -> None:
        """Send what `records.read` has read."""
