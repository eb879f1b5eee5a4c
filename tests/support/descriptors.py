"""Whether a block leaves descriptors open."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import AsyncIterator
from pathlib import Path

import trio

from tests.support.two_sidecars import until


@contextlib.asynccontextmanager
async def no_descriptor_leaked() -> AsyncIterator[None]:
    """As many open descriptors afterwards as before; the test's own app gets a moment to close its own."""
    gc.collect()  # what earlier tests have left to the collector is no concern of this block
    before = _descriptors()
    yield
    with trio.move_on_after(2):
        await until(lambda: _descriptors() == before)
    assert _descriptors() == before


def _descriptors() -> dict[int, str]:
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the descriptor of the listing itself
            target, _, _ = str(entry.readlink()).partition(":")  # without the inode
            found[int(entry.name)] = target
    return found
