"""The new program of an upgrade, towards the old one: takes its sockets over, and says when it may end."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress

import trio

from agent.handover.upgrade import (
    VARIABLE,
    Accepting,
    Complete,
    Descriptor,
    Drain,
    Failed,
    TakeOver,
    hear,
    tell,
)
from agent.workers.channel import Channel, ChannelClosed

LATE_SECONDS = 10.0  # for the old program to close what is left when its time is over


class Predecessor:
    """The old program, which serves until we accept callers. `descriptors`: what it has handed over."""

    def __init__(self, channel: Channel) -> None:
        self.descriptors: list[tuple[str, int]] = []
        self._channel = channel
        self._over = False

    async def receive(self) -> None:
        """Take the descriptors. If the old program has ended meanwhile, taking over will say so."""
        with suppress(ChannelClosed):
            while not isinstance((heard := await hear(self._channel))[0], Complete):
                word, descriptors = heard
                if isinstance(word, Descriptor):
                    self.descriptors += [(word.name, one) for one in descriptors]

    async def take_over(self) -> None:
        """Say that we accept callers, and wait until we are the main process. Raises ChannelClosed."""
        await tell(self._channel, Accepting(os.getpid()))
        word, _ = await hear(self._channel)
        if not isinstance(word, TakeOver):
            raise ChannelClosed(f"the old program said {type(word).__name__}")
        self._over = True

    async def fail(self, detail: str) -> None:
        """Say why we cannot serve, unless it is too late for that."""
        if not self._over:
            with suppress(ChannelClosed):
                await tell(self._channel, Failed(detail))

    async def drain(self, seconds: float) -> None:
        """Give the old program's connections so many seconds."""
        with suppress(ChannelClosed):
            await tell(self._channel, Drain(seconds))

    async def gone(self) -> None:
        """Wait until the old program has ended."""
        with suppress(ChannelClosed):
            while True:
                await hear(self._channel)


def predecessor(environ: MutableMapping[str, str]) -> Predecessor | None:
    """Return the old program that has started this one, and what it hands over; None for a plain start."""
    number = environ.pop(VARIABLE, "")
    if not number.isdigit():
        return None
    os.set_inheritable(int(number), False)
    found = Predecessor(Channel(socket.socket(fileno=int(number))))
    trio.run(found.receive)
    return found
