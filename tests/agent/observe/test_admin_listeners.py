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


async def test_a_second_sidecar_of_a_host_says_which_flag_it_needs(nursery: trio.Nursery) -> None:
    with socket.create_server(("127.0.0.1", 0)) as first:
        one = life(nursery, admin_bind=f"127.0.0.1:{first.getsockname()[1]}")
        one.bench.well()
        said: list[str] = []

        async def act() -> None:
            await trio.lowlevel.checkpoint()
            said.extend(one.bench.agent.admin_problems.values())

        await live(one, act)
    (problem,) = said
    assert problem.endswith("; a second sidecar of this host needs its own -admin-bind")
