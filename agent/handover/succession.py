"""One process of the service between the one before it and the one after it, in an upgrade.

A plain start has no predecessor, and without a service manager there is no successor: then every call here
does nothing, or says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import trio

from agent.base.exits import Exit, ExitCode
from agent.base.phase import Phase
from agent.handover.predecessor import LATE_SECONDS, Predecessor
from agent.handover.upgrade import Upgrade, limited
from agent.net.kept import KeptSockets
from agent.process.systemd import Notifier
from agent.proxy.dataplane import DataPlane
from agent.workers.channel import Channel, ChannelClosed

LOOK_SECONDS = 0.1  # the interval at which a drain looks for connections from before it


@dataclass(slots=True, kw_only=True)
class Succession:
    """Takes over from the old program at the start, and hands over to a new one."""

    notifier: Notifier
    kept: KeptSockets = field(default_factory=KeptSockets)
    upgrade: Upgrade | None = None
    predecessor: Predecessor | None = None
    successor: Channel | None = None
    postponed: bool = False  # an upgrade begins once the agent serves

    async def take_over(self) -> None:
        """Become the main process, once callers are accepted. Raises Exit if the old program is gone."""
        if self.predecessor is None:
            return
        try:
            await self.predecessor.take_over()
        except ChannelClosed as error:
            raise Exit(ExitCode.UNAVAILABLE, f"the old program of the upgrade is gone: {error}") from error
        self.notifier.muted = False
        self.notifier.send("WATCHDOG=1")  # the old program's last may be long ago
        self.kept.store_again()

    @property
    def due(self) -> bool:
        """Whether another program is installed than runs."""
        return self.upgrade is not None and self.upgrade.due

    def refusal(self, phase: Phase) -> str:
        """Return why no upgrade can begin now; empty if one can."""
        if self.upgrade is None or not self.upgrade.possible:
            return "there is no service manager to tell who the main process is"
        if phase is not Phase.SERVING:
            return f"the agent is {phase.value}"
        return "one is under way" if self.upgrade.busy else ""

    def postpone(self, phase: Phase) -> bool:
        """Have an upgrade that is asked for during a start follow it; return whether it does."""
        if phase is not Phase.STARTING or self.upgrade is None or not self.upgrade.notifier.listening:
            return False
        self.postponed = True
        return True

    async def hand_over(self) -> str:
        """Start the new program; return why it failed, empty once it is the main process."""
        assert self.upgrade is not None  # see `refusal`
        self.successor = await self.upgrade.hand_over()
        return self.upgrade.complaint

    async def finish(self, data: DataPlane, hurry: trio.Event) -> int:
        """Accept no more, and wait for the last connection; return how many were cut.

        Without a deadline, unless the service stops meanwhile.
        """
        assert self.successor is not None  # `hand_over` has succeeded
        data.hand_over()
        await data.close_listeners()
        async with trio.open_nursery() as ending:
            ending.start_soon(limited, self.successor, hurry, self.limit)
            cut = await data.drain(math.inf, hurry)
            await self.outlive(math.inf)
            ending.cancel_scope.cancel()
        self.successor.close()
        return cut

    async def limit(self, seconds: float) -> None:
        """Give what is left of the old program so many seconds."""
        if self.predecessor is not None:
            await self.predecessor.drain(seconds)

    async def outlive(self, seconds: float) -> None:
        """Wait for the end of the old program, which ends with us: at most so many seconds and a few."""
        if self.predecessor is not None:
            with trio.move_on_after(seconds + LATE_SECONDS):
                await self.predecessor.gone()


async def outlasted(data: DataPlane, seconds: float, hurry: trio.Event) -> None:
    """Wait until each connection of now has ended, at most `seconds` or until `hurry`."""
    began = trio.current_time()
    with trio.move_on_after(seconds):
        while not hurry.is_set():
            elapsed = trio.current_time() - began
            report = await data.report(rows=False)
            if not report.unheard and (not report.live or report.oldest_seconds < elapsed):
                break
            await trio.sleep(LOOK_SECONDS)
