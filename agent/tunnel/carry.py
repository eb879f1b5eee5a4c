"""Carries a plain socket's bytes in a stream for a task that waits until it is over."""

from __future__ import annotations

import socket

import trio

from agent.h2.faults import ErrorCode
from agent.relay.splice import Progress, Transfer
from agent.tunnel.leg import Leg
from agent.tunnel.tunnel import Tunnel


async def carry(tunnel: Tunnel, sock: socket.socket, block: bytes, progress: Progress) -> Transfer:
    """Carry a socket's bytes in a new stream until it is over; a client's call, while `takes_streams`.

    The socket stays open, as with `Relay.run`. Cancelled, it cuts the stream.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    task, waits = trio.lowlevel.current_task(), False

    def on_over(_leg: Leg) -> None:
        if waits:
            trio.lowlevel.reschedule(task)

    leg = tunnel.open(sock, block, progress, on_over)

    def cancel(_: object) -> trio.lowlevel.Abort:
        leg.cut(ErrorCode.CANCEL)
        return trio.lowlevel.Abort.SUCCEEDED

    if leg.over:
        await trio.lowlevel.cancel_shielded_checkpoint()
    else:
        waits = True
        await trio.lowlevel.wait_task_rescheduled(cancel)
    if leg.failure is not None:
        raise leg.failure
    return leg.transfer()
