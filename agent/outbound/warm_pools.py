"""Runs a pool for each upstream that wants warm connections, as the registration changes.

Most agents want none, so the pool's module is imported when the first upstream asks for some.
"""

from __future__ import annotations

from random import Random

import trio

from agent.base.clock import Clock
from agent.base.containment import Where, kept_up
from agent.outbound.listeners import UpstreamListeners
from agent.outbound.upstream_state import UpstreamState
from agent.outbound.warm_connection import WarmEvents
from agent.snapshot import Snapshot


async def keep_warm(
    upstreams: UpstreamListeners,
    snapshot: Snapshot,
    clock: Clock,
    rng: Random,
    events: WarmEvents,
) -> None:
    """Run the pools until cancelled, and leave no connection behind then."""
    pools: dict[UpstreamState, trio.CancelScope] = {}
    version = 0

    async def keep(targets: UpstreamState, scope: trio.CancelScope) -> None:
        from agent.outbound.warm_pool import WarmContext, WarmPool  # noqa: PLC0415 - few agents need it

        context = WarmContext(snapshot=snapshot, clock=clock, rng=rng, events=events)
        name = f"warm connections of {targets.upstream.destination}"
        with scope:
            await kept_up(events, Where.TASK, name, lambda: WarmPool(targets, context).run())

    async with trio.open_nursery() as nursery:
        while True:
            current, version = await upstreams.in_force.newer(version)
            wanting = {targets for targets in current if targets.upstream.warm}
            for targets in pools.keys() - wanting:
                pools.pop(targets).cancel()
            for targets in wanting - pools.keys():
                pools[targets] = trio.CancelScope()
                nursery.start_soon(keep, targets, pools[targets])
