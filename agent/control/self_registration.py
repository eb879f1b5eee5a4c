"""`-register`: registers the agent itself, keeps its check passing while it serves, and deregisters it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio

from agent.config.effective import check_id, own_definition
from agent.config.registration import Registration
from agent.consul.api import Consul, ConsulError

HEARTBEAT_SECONDS = 10.0  # a third of the check's TTL
GOODBYE_SECONDS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfRegistration:
    """Our registration with the local agent. `missing` returns what keeps us from serving."""

    consul: Consul
    registration: Registration
    missing: Callable[[], list[str]]
    failed: Callable[[str], None]

    async def keep(self) -> None:
        """Register, again whenever the agent has lost us, and update the check; until cancelled."""
        registered = False
        while True:
            try:
                if not registered:
                    await self.consul.register(own_definition(self.registration))
                    registered = True
                pieces = self.missing()
                await self.consul.update_check(
                    check_id(self.registration), "; ".join(pieces) or "ready", passing=not pieces
                )
            except ConsulError as error:
                self.failed(str(error))
                registered = False
            await trio.sleep(HEARTBEAT_SECONDS)

    async def end(self) -> None:
        """Deregister, if that is possible soon, so that no caller is sent to us any more."""
        with trio.move_on_after(GOODBYE_SECONDS):
            try:
                await self.consul.deregister(self.registration.proxy_id)
            except ConsulError as error:
                self.failed(str(error))
