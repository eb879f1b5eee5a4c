"""Datacenters that live in another thread's trio, for tests that are no coroutines: virtual time by the step.

    with Stage(path) as stage:
        stage.start("dc1")
        stage.do(stage.sites["dc1"].put, "/v1/connect/ca/rotate")
        stage.tick(3600)          # from deadline to deadline, as autojump would
        stage.crash("dc1")        # kill -9: what was committed is there, nothing else

The clock only moves within `tick`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from datacenter.federation import endpoints as federation
from tests.datacenter.sites import Site, Wan

T = TypeVar("T")
PATIENCE = 60.0


class Stage:
    """One WAN, and the sites that live on it just now."""

    def __init__(self, directory: Path, **changes: Any) -> None:
        self.wan = Wan()
        self.sites: dict[str, Site] = {}  # those that run
        self._directory = directory
        self._changes = changes
        self._scopes: dict[str, trio.CancelScope] = {}
        self._clock = MockClock()
        self._ready: queue.Queue[trio.lowlevel.TrioToken] = queue.Queue()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._token = self._ready.get(timeout=PATIENCE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self.sites):
            self.crash(name)
        trio.from_thread.run_sync(self._end.set, trio_token=self._token)
        self._thread.join(PATIENCE)

    def do(self, act: Callable[..., Awaitable[T]], *arguments: object) -> T:
        """Await it there. No time passes."""
        return trio.from_thread.run(act, *arguments, trio_token=self._token)

    def start(self, name: str, **changes: Any) -> None:
        """A process of that datacenter, over the files of the one before."""
        self.do(self._start, name, changes)

    def crash(self, name: str) -> None:
        """End it where it stands."""
        self.do(self._crash, name)

    def tick(self, seconds: float) -> None:
        """Let that much time pass."""
        self.do(self._tick, seconds)

    def _run(self) -> None:
        trio.run(self._main, clock=self._clock)

    async def _main(self) -> None:
        self._end = trio.Event()
        async with trio.open_nursery() as self._nursery:
            self._ready.put(trio.lowlevel.current_trio_token())
            await self._end.wait()
            self._nursery.cancel_scope.cancel()

    async def _start(self, name: str, changes: dict[str, Any]) -> None:
        site = self.wan.site(name, path=self._directory / name, **{**self._changes, **changes})
        self.sites[name] = site
        await self._nursery.start(self._live, name, site)
        await wait_all_tasks_blocked()

    async def _live(self, name: str, site: Site, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.CancelScope() as self._scopes[name]:
            await federation.run(site.dc, task_status=task_status)

    async def _crash(self, name: str) -> None:
        self._scopes.pop(name).cancel()
        self.sites.pop(name).dc.store.close()
        self.wan.forget(name)
        await wait_all_tasks_blocked()

    async def _tick(self, seconds: float) -> None:
        end = trio.current_time() + seconds
        await wait_all_tasks_blocked()
        while (rest := end - trio.current_time()) > 0:
            step = trio.lowlevel.current_statistics().seconds_to_next_deadline
            self._clock.jump(max(0.001, min(rest, step)))
            await wait_all_tasks_blocked()
