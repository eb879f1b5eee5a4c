"""The first questions to Consul, repeated until it says which proxy this sidecar is.

A starting Consul refuses what it grants a moment later (403 for a valid token until it has heard from its
servers), and a service may be registered after its sidecar has started. So no answer ends the start: each
refusal is a reason, shown while the agent waits, and only `start_timeout` gives up (agent.lifecycle).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from random import Random
from typing import Any

import trio

from agent.base.clock import Clock
from agent.base.watch_status import WatchStatus
from agent.config.registration import Registration
from agent.config.settings import IdentityKind, Settings
from agent.consul.agent_services import ListedService, find_sidecar
from agent.consul.api import Consul
from agent.consul.errors import ConsulError, ConsulReason
from agent.consul.refusal import remedy
from agent.consul.watch import NEARBY_CEILING, AnswerRejected, Failure, Watch, backoff
from agent.control.watches import read_registration

Services = Mapping[str, ListedService]


class StartReason(StrEnum):
    """Why Consul's answers do not say which proxy is ours."""

    NO_SIDECAR = "no_sidecar"
    SEVERAL_SIDECARS = "several_sidecars"


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What the first questions share."""

    consul: Consul
    settings: Settings
    rng: Random
    on_failure: Callable[[WatchStatus], None]
    status: WatchStatus
    clock: Clock

    async def registration(self) -> Registration:
        """Ask until Consul returns our registration; each failure is reported, and kept in `status`."""
        while True:
            try:
                return await self.registration_of(await self.proxy_id())
            except (ConsulError, AnswerRejected) as failure:
                self._failed(failure)
                await trio.sleep(backoff(self.status.failures_in_row, failure, self.rng, starting=True))

    async def proxy_id(self) -> str:
        """Return the id of our proxy. Raises ConsulError, AnswerRejected."""
        if self.settings.identity is IdentityKind.PROXY_ID:
            return self.settings.proxy_id or ""
        service_id = self.settings.sidecar_for or ""
        try:
            found = await self._found(service_id, partial(self.consul.proxies_of, service_id))
            found = found or await self._found(service_id, self.consul.services)
        except ConsulError as error:
            raise self._explained(error) from error
        if not found:
            return await self._by_convention(service_id)
        if len(found) > 1:
            text = f"service {service_id!r} has {len(found)} sidecars: {', '.join(found)}"
            raise AnswerRejected(StartReason.SEVERAL_SIDECARS, f"{text}; choose one with -proxy-id")
        return found[0]

    async def registration_of(self, proxy_id: str) -> Registration:
        """Return the registration of that proxy. Raises ConsulError, AnswerRejected."""
        try:
            return read_registration(await self.consul.service(proxy_id))
        except ConsulError as error:
            if error.reason is not ConsulReason.NOT_FOUND:
                raise self._explained(error) from error
            raise _with_text(error, _unknown_proxy(proxy_id, error)) from error

    async def _found(self, service_id: str, call: Callable[[], Awaitable[Services]]) -> Sequence[str]:
        """Return the sidecars in a list; none if the registration of another service makes it unreadable."""
        try:
            return find_sidecar(await call(), service_id)
        except ConsulError as error:
            if error.reason is not ConsulReason.MALFORMED or error.status is not None:
                raise
            self._failed(error)
            return ()

    async def _by_convention(self, service_id: str) -> str:
        """Ask for the usual proxy id, which tells a missing sidecar from a token that may read no list."""
        proxy_id = f"{service_id}-sidecar-proxy"
        try:
            registration = read_registration(await self.consul.service(proxy_id))
            if registration.service_id.lower() == service_id.lower():
                return proxy_id
        except AnswerRejected:
            pass  # that proxy is no sidecar either: one message for both
        except ConsulError as error:
            if error.reason is not ConsulReason.NOT_FOUND:
                raise
        raise AnswerRejected(StartReason.NO_SIDECAR, _no_sidecar(service_id, self.settings))

    def _failed(self, failure: Failure) -> None:
        self.status.failed(failure, self.clock())
        self.on_failure(self.status)

    def _explained(self, error: ConsulError) -> ConsulError:
        """Return the same error, saying that a Consul agent never answers so."""
        if error.reason not in (ConsulReason.MALFORMED, ConsulReason.NOT_FOUND):
            return error
        text = f"{self.settings.http_addr} does not answer as a Consul agent does: {error.text}"
        return _with_text(error, text)


async def hurry(watches: Mapping[str, Watch[Any, Any]]) -> None:
    """Retry soon every watch that is failing, while the agent starts; until cancelled."""
    while True:
        await trio.sleep(NEARBY_CEILING / 2)
        for watch in watches.values():
            if watch.status.failing is not None:
                watch.kick()


def token_remedy(settings: Settings, error: ConsulError, service: str | None = None) -> str:
    """Return what an operator does about a refusal that does not pass."""
    given = settings.token is not None or settings.token_file is not None
    return remedy(error, given=given, service=service or settings.service or settings.sidecar_for or "NAME")


def _with_text(error: ConsulError, text: str) -> ConsulError:
    return ConsulError(error.reason, error.path, text, status=error.status)


def _unknown_proxy(proxy_id: str, error: ConsulError) -> str:
    return (
        f"the Consul agent knows no service with the id {proxy_id!r} ({error.text}); register it with this "
        "agent, or see `consul services` for the ids it has"
    )


def _no_sidecar(service_id: str, settings: Settings) -> str:
    return (
        f"the Consul agent at {settings.http_addr} knows no sidecar for the service id {service_id!r}; "
        "check the id (it is not the name), register the service with `connect { sidecar_service {} }` on "
        "this agent, use -proxy-id, or check that the token may read the service"
    )
