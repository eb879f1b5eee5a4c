"""Tells the log and the service manager whether the agent is ready, from the first second to the drain.

Ready is said of an agent that lacks nothing. One that serves in part, since an address is taken, says what it
lacks; the service manager is told READY=1 all the same once `start_timeout` is over, or it would end what is
served, and whatever is ordered after the unit would wait for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.base.phase import Phase
from agent.observe.agent import Agent
from agent.observe.readiness import headline, missing
from agent.process.systemd import Notifier

MORE_SECONDS = 30.0  # by which each message extends the service manager's start timeout


@dataclass(slots=True)
class Announcement:
    """What the log and the service manager were told last."""

    agent: Agent
    notifier: Notifier
    _started: bool = False  # the service manager has READY=1
    _ready: bool = False  # the log has had `ready` once
    _pieces: Sequence[str] = ()
    _status: str = ""

    def look(self, seconds: float, limit: float) -> None:
        """Say what has changed, `seconds` after the start began.

        `limit`: after how many of them the service manager is told READY=1, whatever an agent that serves
        lacks.
        """
        if self.agent.control.phase is not Phase.STARTING:
            pieces = missing(self.agent)
            self._log(pieces, seconds)
            if not self._started and (not pieces or seconds >= limit):
                self._started = True
                self._say_ready()
        if not self._started:
            self.notifier.extend(MORE_SECONDS)
        self._say_status()

    def reloading(self) -> None:
        """Say that a reload or an upgrade begins, unless it meets a start: READY=1 would end that."""
        if self._started:
            self.notifier.reloading()

    def reloaded(self) -> None:
        """Say that it has ended."""
        if self._started:
            self._say_ready()

    def _log(self, pieces: Sequence[str], seconds: float) -> None:
        before, self._pieces = self._pieces, pieces
        if pieces and pieces != before:
            self.agent.log.unready(pieces)
        elif not pieces and not self._ready:
            self._ready = True
            self.agent.log.ready(seconds)
        elif not pieces and before:
            self.agent.log.ready()

    def _say_ready(self) -> None:
        self._status = headline(self.agent)
        self.notifier.send("READY=1", f"STATUS={self._status}")

    def _say_status(self) -> None:
        if (status := headline(self.agent)) != self._status:
            self._status = status
            self.notifier.send(f"STATUS={status}")
