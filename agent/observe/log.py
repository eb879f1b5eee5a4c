"""Lines on standard error, text or JSON with the same fields: `ts`, `level`, `event`, then the event's own.

Values are printed, never objects: nothing here can reach a key or a token. A line is one write, so that lines
of several processes on one stream do not mix; none is waited for (agent.process.sink).
"""

from __future__ import annotations

from typing import TextIO

import msgspec

from agent.base.clock import Clock
from agent.config.options import LogFormat, LogLevel
from agent.process.sink import Sink

_RANK = {level: rank for rank, level in enumerate(LogLevel)}
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+.:/@%*,[]")

Field = str | int | float | bool | None


class Log:
    """Events less important than `level` are not written. `clock` tells UTC."""

    def __init__(
        self,
        stream: TextIO,
        clock: Clock,
        *,
        level: LogLevel = LogLevel.INFO,
        form: LogFormat = LogFormat.TEXT,
        worker: int | None = None,
    ) -> None:
        self._sink = stream if isinstance(stream, Sink) else Sink(stream)
        self._clock = clock
        self._form = form
        self._worker = worker  # which process says it, where there are several
        self.level = level

    @property
    def lost(self) -> int:
        """How many lines nobody could be told."""
        return self._sink.lost

    @property
    def problem(self) -> str:
        """Why no line can be told, if so."""
        return self._sink.problem

    def wants(self, level: LogLevel) -> bool:
        """Whether a line of that level is written: asked first where each connection would make one."""
        return _RANK[level] >= _RANK[self.level]

    def write(self, level: LogLevel, event: str, **fields: Field) -> None:
        """One line, if the level is wanted."""
        if not self.wants(level):
            return
        # Without its zone, which is UTC. Asked for its offset, it leaves a string in the interpreter's cache
        # of attributes each time; after a flood of refusals hundreds of those hold a page of memory each.
        ts = self._clock().replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
        if self._worker is not None:
            fields["worker"] = self._worker
        said = {name: _sayable(value) for name, value in fields.items() if value is not None and value != ""}
        if self._form is LogFormat.JSON:
            line = msgspec.json.encode({"ts": ts, "level": level.value, "event": event, **said}).decode()
        else:
            words = (f"{name}={_word(value)}" for name, value in said.items())
            line = " ".join((ts, f"{level.value.upper():5}", event, *words))
        self._sink.write(line + "\n")

    async def keep_up(self) -> None:
        """Write what had to wait, for ever, and say afterwards how much was lost."""
        while True:
            lost = await self._sink.caught_up()
            self.write(LogLevel.WARN, "log.lost", lines=lost)


def _sayable(value: Field) -> Field:
    """Whatever a text holds, a line can be made of it: half a surrogate pair is no character (of a path)."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _word(value: Field) -> str:
    """A value in a line of text: bare if it is one plain word, else quoted as JSON does."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if text and _PLAIN.issuperset(text) else msgspec.json.encode(text).decode()
