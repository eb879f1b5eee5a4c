"""Our proxy in Consul: `-register` registers it; one that others registered is in maintenance after the end.

One that Consul does not know any more takes no callers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import trio

from agent.base.address import Address
from agent.base.latest import Latest
from agent.base.watch_status import WatchStatus
from agent.config.effective import check_id, deregistered, own_definition
from agent.config.registration import Registration
from agent.config.settings import IdentityKind, Settings
from agent.consul.api import Consul
from agent.consul.errors import ConsulError
from agent.consul.maintenance import maintenance_reason, set_maintenance
from agent.consul.watch import is_gone
from upstreams.spec import TunnelMode

HEARTBEAT_SECONDS = 10.0  # a third of the check's TTL
GOODBYE_SECONDS = 3.0
GONE_GRACE = 60.0  # seconds; a service that is registered again is unknown for a moment
LEAVE_SECONDS = 3.0  # the default of `leave_seconds`
STOPPING = "connect-sidecar: stopping"  # the reason of a maintenance of ours


class Presence(Protocol):
    """Keeps Consul's view of our proxy true."""

    async def keep(self) -> None:
        """Send callers to us while we serve."""

    async def leave(self) -> bool:
        """Send no more callers to us, if that is possible soon; return whether it was."""


class PresenceEvents(Protocol):
    """The events of our presence in Consul; must not block."""

    def maintenance_ended(self) -> None: ...
    def maintenance_failed(self, detail: str) -> None: ...
    def self_registration_failed(self, detail: str) -> None: ...


class RegistrationEvents(Protocol):
    """The events of a registration that Consul does not know any more; must not block."""

    def watch_failed(self, status: WatchStatus) -> None: ...
    def watch_recovered(self, status: WatchStatus) -> None: ...
    def registration_gone(self, proxy_id: str) -> None: ...
    def registration_changed(self, proxy_id: str, problems: Sequence[str]) -> None: ...


@dataclass(slots=True)
class Deregistration:
    """Withdraws the public listener when Consul has not known our proxy for a while.

    `again` publishes the registration as it was.
    """

    registration: Latest[Registration]
    events: RegistrationEvents
    again: Callable[[], None]
    _since: float = 0.0

    def failed(self, status: WatchStatus) -> None:
        """Note that the watch of our registration has failed."""
        self.events.watch_failed(status)
        effective = self.registration.value
        if not is_gone(status):
            return
        if status.failures_in_row == 1 or status.reason_changed:
            self._since = trio.current_time()
            self.events.registration_gone(effective.proxy_id if effective else "")
        elif effective and effective.accepts_callers and trio.current_time() - self._since > GONE_GRACE:
            withdrawn = deregistered(effective)
            self.registration.publish(withdrawn)
            self.events.registration_changed(withdrawn.proxy_id, list(map(str, withdrawn.problems)))

    def recovered(self, status: WatchStatus) -> None:
        """Note that Consul knows our proxy again."""
        self.events.watch_recovered(status)
        self.again()


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfRegistration:
    """Our registration with the local agent. `missing` returns what keeps us from serving.

    `tunnels`: it offers callers tunnels.
    """

    consul: Consul
    registration: Registration
    missing: Callable[[], list[str]]
    failed: Callable[[str], None]
    tunnels: bool = False

    async def keep(self) -> None:
        """Register, again whenever the agent has lost us, and update the check; until cancelled."""
        registered = False
        while True:
            try:
                if not registered:
                    await self.consul.register(own_definition(self.registration, tunnels=self.tunnels))
                    registered = True
                pieces = self.missing()
                await self.consul.update_check(
                    check_id(self.registration), "; ".join(pieces) or "ready", passing=not pieces
                )
            except ConsulError as error:
                self.failed(str(error))
                registered = False
            await trio.sleep(HEARTBEAT_SECONDS)

    async def leave(self) -> bool:
        """Deregister, if that is possible soon, so that no caller is sent to us any more."""
        with trio.move_on_after(GOODBYE_SECONDS):
            try:
                await self.consul.deregister(self.registration.proxy_id)
            except ConsulError as error:
                self.failed(str(error))
            else:
                return True
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintenance:
    """Consul's maintenance of a proxy that others have registered, with our reason.

    Consul keeps the first reason, so an operator's maintenance remains the operator's.
    """

    consul: Consul
    proxy_id: str
    ended: Callable[[], None]
    failed: Callable[[str], None]
    tunnels: bool = False

    async def keep(self) -> None:
        """End a maintenance of ours, which the last end has left; try again until Consul has answered."""
        complaint = ""
        while True:
            try:
                if await maintenance_reason(self.consul, self.proxy_id) == STOPPING:
                    await set_maintenance(self.consul, self.proxy_id, None)
                    self.ended()
            except ConsulError as error:
                if complaint != str(error):
                    complaint = str(error)
                    self.failed(complaint)
            else:
                return
            await trio.sleep(HEARTBEAT_SECONDS)

    async def leave(self) -> bool:
        """Put the proxy into maintenance, if that is possible soon."""
        complaint = f"no answer within {GOODBYE_SECONDS:g} s"
        with trio.move_on_after(GOODBYE_SECONDS):
            try:
                await set_maintenance(self.consul, self.proxy_id, STOPPING)
            except ConsulError as error:
                complaint = str(error)
            else:
                return True
        self.failed(complaint)
        return False


def presence(
    settings: Settings,
    consul: Consul,
    registration: Registration,
    missing: Callable[[], list[str]],
    events: PresenceEvents,
) -> Presence | None:
    """Return what keeps Consul's view of our proxy; None if Consul knows none of ours."""
    if settings.identity is not IdentityKind.SERVICE:
        return Maintenance(
            consul=consul,
            proxy_id=registration.proxy_id,
            ended=events.maintenance_ended,
            failed=events.maintenance_failed,
        )
    if not settings.register:
        return None
    return SelfRegistration(
        consul=consul,
        registration=registration,
        missing=missing,
        failed=events.self_registration_failed,
        tunnels=settings.tunnel is TunnelMode.AUTO,
    )


def leave_seconds(given: float | None, inherited: Address | None) -> float:
    """Return how long callers are accepted after they were sent away: `given`, or what fits.

    `inherited` is the address of a public socket of systemd's, in which callers wait for the next start.
    """
    if given is not None:
        return given
    return LEAVE_SECONDS if inherited is None else 0.0
