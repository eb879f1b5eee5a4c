"""The first minute: find out who we are, and end with one clear message when that cannot be.

Before the agent has served, a refusal by Consul is a mistake somebody must mend, and is told as an exit code.
Afterwards the same refusal is weather: the last good values stay and the watch asks on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import TypeVar

import trio

from agent.base.clock import Clock
from agent.base.exits import Exit, ExitCode
from agent.base.watch_status import WatchStatus
from agent.config.registration import Registration
from agent.config.settings import IdentityKind, Settings
from agent.consul.agent_services import ListedService, find_sidecar
from agent.consul.api import Consul, ConsulError, ConsulReason
from agent.consul.watch import AnswerRejected, backoff
from agent.control.watches import read_registration

T = TypeVar("T")
Services = Mapping[str, ListedService]


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What the first steps share."""

    consul: Consul
    settings: Settings
    rng: Random
    on_failure: Callable[[WatchStatus], None]
    status: WatchStatus
    clock: Clock

    async def proxy_id(self) -> str:
        """The id of the proxy service that is us. Raises Exit when Consul knows none, or several."""
        if self.settings.identity is IdentityKind.PROXY_ID:
            return self.settings.proxy_id or ""
        service_id = self.settings.sidecar_for or ""
        try:
            found = await self._found(service_id, partial(self.consul.proxies_of, service_id))
            found = found or await self._found(service_id, self.consul.services)
        except ConsulError as error:
            raise Exit(ExitCode.CONFIGURATION, _not_consul(error, self.settings)) from error
        if len(found) == 1:
            return found[0]
        if found:
            raise Exit(
                ExitCode.CONFIGURATION,
                f"service {service_id!r} has {len(found)} sidecars: {', '.join(found)}; "
                "choose one with -proxy-id",
            )
        return await self._by_convention(service_id)

    async def registration(self, proxy_id: str) -> Registration:
        """The registration of that proxy. Raises Exit when there is none, or one we cannot serve."""

        async def first() -> Registration:
            return read_registration(await self.consul.service(proxy_id))

        try:
            return await self._ask(first)
        except ConsulError as error:
            raise Exit(ExitCode.CONFIGURATION, _unknown_proxy(proxy_id, error)) from error
        except AnswerRejected as error:
            text = f"the registration of {proxy_id!r} cannot be served: {error.detail}"
            raise Exit(ExitCode.CONFIGURATION, text) from error

    async def _found(self, service_id: str, call: Callable[[], Awaitable[Services]]) -> Sequence[str]:
        """The sidecars in that list; none, if the registration of one service makes the list unreadable."""

        async def readable() -> Services:
            try:
                return await call()
            except ConsulError as error:
                if error.reason is not ConsulReason.MALFORMED or error.status is not None:
                    raise
                self.status.failed(error, self.clock())
                self.on_failure(self.status)
                return {}

        return find_sidecar(await self._ask(readable), service_id)

    async def _by_convention(self, service_id: str) -> str:
        """A token that may not read sees an empty list: ask for the usual id, which tells the two apart."""
        proxy_id = f"{service_id}-sidecar-proxy"

        async def first() -> str:
            return read_registration(await self.consul.service(proxy_id)).service_id

        try:
            if (await self._ask(first)).lower() == service_id.lower():
                return proxy_id
        except (ConsulError, AnswerRejected):
            pass  # there is none of that name either: one message for both
        raise Exit(ExitCode.CONFIGURATION, _no_sidecar(service_id, self.settings))

    async def _ask(self, call: Callable[[], Awaitable[T]]) -> T:
        """Ask until there is an answer. A refusal ends the start; what is unknown is for the caller."""
        while True:
            try:
                return await call()
            except ConsulError as error:
                if error.reason is ConsulReason.NOT_FOUND:
                    raise
                raise_if_fatal(error, self.settings)
                self.status.failed(error, self.clock())
                self.on_failure(self.status)
                await trio.sleep(backoff(self.status.failures_in_row, error, self.rng))


def raise_if_fatal(error: ConsulError, settings: Settings) -> None:
    """Raise Exit for what no waiting mends: an ACL's refusal, or an answer that is not Consul's."""
    if error.reason is ConsulReason.DENIED:
        raise Exit(ExitCode.PERMISSION, _denied(error, settings)) from error
    if error.reason is ConsulReason.MALFORMED:
        raise Exit(ExitCode.CONFIGURATION, _not_consul(error, settings)) from error


def _not_consul(error: ConsulError, settings: Settings) -> str:
    return f"{settings.http_addr} does not answer as a Consul agent does: {error}"


def _denied(error: ConsulError, settings: Settings) -> str:
    if settings.token is None and settings.token_file is None:
        remedy = "no token is set; give one with -token-file or CONSUL_HTTP_TOKEN"
    else:
        remedy = "the token needs service:write on the service (a service-identity token has what is needed)"
    return f"Consul refuses: {error}; {remedy}"


def _unknown_proxy(proxy_id: str, error: ConsulError) -> str:
    return (
        f"the Consul agent knows no service with the id {proxy_id!r} ({error}); register it with this agent, "
        "or see `consul services` for the ids it has"
    )


def _no_sidecar(service_id: str, settings: Settings) -> str:
    return (
        f"the Consul agent at {settings.http_addr} knows no sidecar for the service id {service_id!r}; "
        "check the id (it is not the name), register the service with `connect { sidecar_service {} }` on "
        "this agent, use -proxy-id, or check that the token may read the service"
    )
