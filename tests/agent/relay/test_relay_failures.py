"""Who hears of a bug in a handler of the relay's."""

from __future__ import annotations

import socket

import trio

from agent.relay.relay import Relay
from agent.relay.splice import READ


async def test_a_bug_is_heard_of_although_its_handler_has_detached_the_descriptor() -> None:
    hear, hearing = trio.open_memory_channel[Exception](1)
    bug = RuntimeError("a bug")
    near, far = socket.socketpair()
    with near, far, Relay() as relay:

        def handle(_events: int) -> None:
            relay.detach(near.fileno(), watch)
            raise bug

        watch = relay.attach(near.fileno(), handle, hear.send_nowait)
        watch.want(READ)
        far.send(b"x")
        with trio.fail_after(5):
            assert await hearing.receive() is bug
