"""The authority and the federation in a world without background services: done once, when a test says so."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from datacenter.ca.authority import CertificateAuthority
from datacenter.federation.replication import replicate
from datacenter.federation.secondary import Secondary
from tests.datacenter.world import World


async def joined(world: World) -> None:
    """dc1 has its first root, dc2 its intermediate under it, and a copy of the intentions."""
    for site in (world.dc1, world.dc2):
        CertificateAuthority(site.dc).start()
    await caught_up(world)


async def caught_up(world: World) -> None:
    """dc2 follows dc1 until there is nothing new."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Secondary(world.dc2.dc).follow)
        nursery.start_soon(replicate, world.dc2.dc)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
