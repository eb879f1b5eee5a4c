"""The control plane is killed and the leaves expire: every caller is refused, by that reason.

It recovers in time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio

from tests.rotation.mesh import Sidecar, mesh, until

RECOVERY = 2.0  # seconds after the datacenter answers again


async def test_it_says_so_and_recovers(tmp_path: Path) -> None:
    async with mesh(tmp_path, leaf_ttl="6s", flags=["-expired-peer-grace", "never"]) as whole:
        web, db = whole.sidecars
        for site in (whole.dc1, whole.dc2):
            site.kill()
        for sidecar in (web, db):
            await until(lambda one=sidecar: _expired(one), f"{sidecar.name} is not ready")  # type: ignore[misc]
        # Straight to db's public listener: its own certificate has ended, so no handshake is begun.
        public = int((await db.status())["settings"]["listen"]["value"].rpartition(":")[2])
        async with await trio.open_tcp_stream("127.0.0.1", public) as stream:
            with trio.fail_after(5):
                assert await _ends(stream)
        refused = await _endings(db, "inbound")
        assert set(refused) >= {"credentials_expired"}
        for sidecar, site in ((web, whole.dc1), (db, whole.dc2)):
            site.start()
            await until(lambda one=site: one.ask("GET", "/v1/agent/self"), f"{site.name} answers")  # type: ignore[misc]
            began = trio.current_time()
            await until(lambda one=sidecar: _ready(one), f"{sidecar.name} is ready again", RECOVERY)  # type: ignore[misc]
            assert trio.current_time() - began <= RECOVERY


async def _expired(sidecar: Sidecar) -> bool:
    return any("credentials_expired" in piece for piece in (await sidecar.status()).get("missing", []))


async def _ready(sidecar: Sidecar) -> bool:
    return not any("credentials" in piece for piece in (await sidecar.status())["missing"])


async def _endings(sidecar: Sidecar, direction: str) -> dict[str, Any]:
    return dict((await sidecar.status())["counters"]["endings"][direction])


async def _ends(stream: trio.SocketStream) -> bool:
    try:
        return await stream.receive_some() == b""
    except trio.BrokenResourceError:
        return True
