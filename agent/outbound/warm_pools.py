"""Which upstreams have warm connections: followed as the registration changes, until the agent drains.

Most agents have none, so what keeps them is imported when the first upstream asks for it.
"""

from __future__ import annotations

import trio

from agent.outbound.upstream_state import Targets
from agent.parts import Parts


async def keep_warm(parts: Parts) -> None:
    """Run a pool for every upstream that wants one, for ever. Cancelled, it leaves no connection behind."""
    upstreams = parts.upstreams
    assert upstreams is not None  # made before anything is served
    pools: dict[Targets, trio.CancelScope] = {}
    version = 0
    async with trio.open_nursery() as nursery:
        while True:
            current, version = await upstreams.in_force.newer(version)
            wanting = {targets for targets in current if targets.upstream.warm}
            for targets in pools.keys() - wanting:
                pools.pop(targets).cancel()
            for targets in wanting - pools.keys():
                pools[targets] = trio.CancelScope()
                nursery.start_soon(_keep, parts, targets, pools[targets])


async def _keep(parts: Parts, targets: Targets, scope: trio.CancelScope) -> None:
    from agent.observe.warm_log import WarmLog  # noqa: PLC0415 - few agents need these
    from agent.outbound.warm_pool import Grounds, WarmPool  # noqa: PLC0415

    grounds = Grounds(
        contexts=parts.contexts,
        deny_list=parts.deny_file.latest,
        outgoing=parts.outgoing,
        clock=parts.clock,
        rng=parts.rng,
        handshake_timeout=lambda: _handshake_timeout(parts),
        events=WarmLog(parts.journal),
    )
    with scope:
        await WarmPool(targets, grounds).run()


def _handshake_timeout(parts: Parts) -> float:
    registration = parts.placement.value
    assert registration is not None  # an upstream comes out of one
    return registration.handshake_timeout
