"""Waits at a start for files that the settings name and that are not there, or not whole, yet.

After a reboot they may come after us: the token of a Vault agent, the CA of a Consul agent, a list of another
program's. So each is waited for until `start_timeout`, with its reason in STATUS, and then the exit is one
that the service manager retries. What it takes is taken from the time that Consul then has (agent.lifecycle).
This is before the kernel holds the process to its files (agent.sandbox).
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import trio

from agent.base.exits import Exit, ExitCode, NotYet
from agent.overview.headline import starting
from agent.process.systemd import Notifier

# The first process of a container gets no signal that it has no handler for (pid_namespaces(7)).
ENDING = (signal.SIGTERM, signal.SIGINT)
LOOK_SECONDS = 0.25
MORE_SECONDS = 30.0  # by which the service manager's start timeout is extended

Made = TypeVar("Made")


@dataclass(slots=True)
class Awaited:
    """One wait. `seconds`: at most so long, 0 for ever; `reason`: what is missing at first.

    `waited`: how long it took, in seconds.
    """

    notifier: Notifier
    on_reason: Callable[[str], None]
    seconds: float
    reason: str
    waited: float = 0.0

    async def made(self, make: Callable[[], Made]) -> Made:
        """Return what `make` makes once it raises NotYet no more. Raises Exit when the time is over."""
        self._say(self.reason)
        began = trio.current_time()
        with trio.open_signal_receiver(*ENDING) as signals:
            while self.waited < (self.seconds or math.inf):
                self.notifier.extend(MORE_SECONDS)
                with trio.move_on_after(LOOK_SECONDS):
                    name = signal.Signals(await anext(signals)).name
                    raise Exit(ExitCode.CLEAN, f"{name} while it waited: {self.reason}")
                self.waited = trio.current_time() - began
                try:
                    return make()
                except NotYet as error:
                    if error.message != self.reason:
                        self._say(error.message)
        raise Exit(ExitCode.UNAVAILABLE, f"not able to serve within {self.seconds:g} s: {self.reason}")

    def _say(self, reason: str) -> None:
        self.reason = reason
        self.notifier.send(f"STATUS={starting([reason], self.seconds)}")
        self.on_reason(reason)
