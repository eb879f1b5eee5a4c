"""The sockets of the admin endpoint: an address that is not to be had yet is tried again, the rest served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from agent.base.address import Address
from agent.base.containment import Kept, Where
from agent.base.exits import Exit
from agent.config.collisions import ADMIN
from agent.net.bind import BindFailed, Bound, address_of, bind
from agent.net.kept import KeptSockets
from agent.net.listeners import RETRY_SECONDS
from agent.observe.agent import Agent
from agent.observe.server import Admin, Route

MODE = 0o600  # of a unix socket's file
_OWN = "a second sidecar of this host needs its own -admin-bind"


@dataclass(slots=True)
class AdminListeners:
    """The listeners of one agent's admin endpoint. `kept`: those that the service manager keeps."""

    agent: Agent
    kept: KeptSockets
    _bound: list[Bound] = field(default_factory=list)
    _serving: list[trio.CancelScope] = field(default_factory=list)
    _left: bool = False  # another process answers

    async def bind(self) -> None:
        """Bind every address that can be had. Raises Exit where no retry helps."""
        agent = self.agent
        for address in agent.control.settings.admin_bind:
            try:
                await self._bind_one(address)
            except BindFailed as error:
                if not error.passing:
                    raise Exit(error.code, str(error)) from error
                agent.admin_problems[address] = text = f"{error}; {_OWN}"
                agent.log.listening_failed(ADMIN, text)
        agent.control.admin_at = [*(address_of(one.sock) for one in self._bound), *agent.admin_problems]

    def serve(self, kept: Kept, routes: Sequence[Route]) -> None:
        """Answer requests, from now on."""
        admin = Admin(routes, self.agent.log, self.agent.control.settings.admin_hosts or ())
        for bound in self._bound:
            self._serve_at(bound, admin, kept)
        for address in self.agent.admin_problems:
            kept.begin(
                Where.ADMIN, "an address of the admin endpoint", self._open_later, address, admin, kept
            )

    def leave(self) -> None:
        """Answer no more: another process does, on the same sockets."""
        self._left = True
        for scope in self._serving:
            scope.cancel()

    def close(self) -> None:
        """Close the sockets; those that are kept wait for the service's next process."""
        for bound in self._bound:
            bound.close()

    async def _bind_one(self, address: Address) -> Bound:
        kept = await self.kept.take(address, ADMIN)
        bound = kept[0] if kept else await bind(address, ADMIN, MODE)
        self._bound.append(bound)  # to be closed at the end, whatever becomes of it
        bound.listen()
        self.kept.keep(bound)
        self.agent.admin_problems.pop(address, None)
        self.agent.admin_addresses.append(bound.address)
        return bound

    def _serve_at(self, bound: Bound, admin: Admin, kept: Kept) -> None:
        self.agent.log.listening(bound.purpose, bound.address)
        kept.begin(Where.ADMIN, "the admin endpoint", self._answer, admin, bound)

    async def _answer(self, admin: Admin, bound: Bound) -> None:
        if not self._left:
            with trio.CancelScope() as scope:
                self._serving.append(scope)
                await admin.serve([bound.sock])

    async def _open_later(self, address: Address, admin: Admin, kept: Kept) -> None:
        """Try again, until the address is had."""
        while address in self.agent.admin_problems:
            await trio.sleep(RETRY_SECONDS)
            try:
                self._serve_at(await self._bind_one(address), admin, kept)
            except BindFailed as error:
                self.agent.admin_problems[address] = str(error)
