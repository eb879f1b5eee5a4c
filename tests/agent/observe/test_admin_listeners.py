"""The admin endpoint's sockets: kept by the service manager, like every other listener."""

from __future__ import annotations

import socket
from pathlib import Path

import trio

from tests.support.agent_in_process import keep_in, life, live
from tests.support.descriptor_store import Store


async def test_who_asks_between_two_processes_waits_for_the_next(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    store, path = Store(), tmp_path / "admin.sock"
    for _ in range(2):
        one = life(nursery, admin_bind=f"unix:{path}")
        one.bench.well()
        with store.process() as kept:
            keep_in(one, kept)
            await live(one, trio.lowlevel.checkpoint)
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(path))
    assert len(store.kept) == 1
    store.close()
