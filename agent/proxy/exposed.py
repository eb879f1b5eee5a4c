"""The listeners of exposed paths: they follow the registration, and only those that differ are changed."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from agent.config.exposed_paths import ExposedPath
from agent.config.registration import Registration
from agent.connections.ledger import Ledger
from agent.inbound.exposed import MOST, Callers, ExposedService, serve_exposed
from agent.net.admission import Admission, Slot
from agent.net.listeners import Listeners, Opening


@dataclass(slots=True, kw_only=True)
class ExposedPaths:
    """The exposed paths of one process. `current`: those in force, by the key of their listener."""

    listeners: Listeners
    ledger: Ledger
    callers: Callers
    connect_timeout: float = 1.0  # seconds, of the newest registration
    current: dict[str, ExposedPath] = field(default_factory=dict)

    async def bind(self, registration: Registration) -> None:
        """Bind every address at the start. Raises BindFailed."""
        self.current = _by_key(registration.exposed)
        self.connect_timeout = registration.local_connect_timeout
        for key, one in self.current.items():
            await self.listeners.bind(key, self._opening(one))

    async def follow(self, registration: Registration) -> None:
        """Apply one registration: close what is gone or another, and then open what is new."""
        before, self.current = self.current, _by_key(registration.exposed)
        self.connect_timeout = registration.local_connect_timeout
        for key, one in before.items():
            if self.current.get(key) != one:
                await self.listeners.close(key)
        for key, one in self.current.items():
            if before.get(key) != one:
                await self.listeners.add(key, self._opening(one))

    def _opening(self, one: ExposedPath) -> Opening:
        return Opening(
            purpose=f"exposed path {one.path}",
            address=one.bind,
            handler=partial(self._serve, one),
            admission=Admission(2 * MOST, MOST, fair=True, grace=0.0, own_grace=0.0),
        )

    async def _serve(self, one: ExposedPath, sock: socket.socket, slot: Slot) -> None:
        service = ExposedService(
            path=one.path,
            app=one.app,
            callers=self.callers,
            ledger=self.ledger,
            connect_timeout=self.connect_timeout,
            shun=self.listeners.own.of_app,
        )
        await serve_exposed(sock, slot, service)


def _by_key(paths: Sequence[ExposedPath]) -> dict[str, ExposedPath]:
    return {f"exposed {one.bind.port}": one for one in paths}
