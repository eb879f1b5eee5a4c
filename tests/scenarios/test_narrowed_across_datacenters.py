"""One intention, narrowed by its Meta, written once in dc1: in force in both, on open connections too.

`api` calls from both, the sidecar of `web` in dc1 and that of `db` in dc2. What may come from dc1 alone does.
"""

from __future__ import annotations

from pathlib import Path

import trio

from tests.rotation.mesh import Sidecar, Site, mesh, until
from tests.scenarios.far_callers import Callers, Held, refused, served

FEW = 3
NARROWED = {
    "Kind": "service-intentions",
    "Name": "*",
    "Sources": [{"Name": "api", "Action": "allow"}],
    "Meta": {"source-datacenters": "dc1"},
}


async def test_who_calls_from_dc1_may_and_who_calls_from_dc2_may_not(tmp_path: Path) -> None:
    async with mesh(tmp_path) as whole, trio.open_nursery() as nursery:
        them = Callers(whole=whole, directory=tmp_path, nursery=nursery)

        async def calls(site: Site) -> list[Held]:
            return [
                one
                for sidecar in whole.sidecars
                for one in await them.call("api", FEW, site=site, sidecar=sidecar)
            ]

        async def narrowed(sidecar: Sidecar) -> int:
            return (await sidecar.endings())["inbound"].get("narrowed_by_datacenter", 0)

        async def both_say(count: int) -> bool:
            return [await narrowed(sidecar) for sidecar in whole.sidecars] == [count, count]

        near, far = await calls(whole.dc1), await calls(whole.dc2)
        await served([*near, *far])
        assert await whole.dc1.ask("PUT", "/v1/config", NARROWED)
        await until(lambda: both_say(FEW), "both sidecars cut those of dc2")
        await served(near, b"still here")
        assert [one.ended for one in near] == [None] * len(near)
        assert None not in [one.ended for one in far]
        await refused(await calls(whole.dc2))
        await until(lambda: both_say(2 * FEW), "both sidecars refuse those of dc2")
        await served(await calls(whole.dc1))
        nursery.cancel_scope.cancel()
