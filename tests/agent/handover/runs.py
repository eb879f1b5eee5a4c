"""Two runs of one service: what the first leaves, the second has."""

from __future__ import annotations

import os
from pathlib import Path

import trio

from agent.handover.keep import StateKeeper
from agent.handover.memory import Memory
from agent.handover.resume import Resume
from agent.handover.sealed_file import sealed_file
from tests.support.agent_in_process import Life, public_life, wall
from tests.support.descriptor_store import Store


def run(nursery: trio.Nursery, store: Store, directory: Path | None = None, **flags: str | list[str]) -> Life:
    """Return a life that has not begun, with what the service manager keeps."""
    one = public_life(nursery, **flags)
    memory = Memory(
        [(name, os.dup(fd)) for name, fd in store.kept.items() if name.startswith("state-")], store
    )
    control, agent = one.bench.control, one.bench.agent
    resume = Resume(control=control, events=agent.log, clock=wall)
    secret = None if directory is None else directory / "secret"
    file = sealed_file(directory, secret)
    resume.read(memory, file)
    agent.last_run = resume
    one.cycle.state = StateKeeper(control=control, memory=memory, file=file, resume=resume)
    return one


def state_of(one: Life) -> StateKeeper:
    """Return the keeper of a life."""
    assert one.cycle.state is not None
    return one.cycle.state


async def lived(one: Life) -> None:
    """Run a life until it has left its state, with every upstream's endpoints, and end it."""
    keeper = state_of(one)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        await one.ready()
        sources = one.bench.control.endpoints.known().values()
        await one.until(lambda: all(source.endpoints.value is not None for source in sources))
        await keeper.write_news()
        one.cycle.drain("the test")
    keeper.memory.close()
