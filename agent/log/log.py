"""Writes log lines to standard error, as text or JSON: `ts`, `level`, `event`, then the event's own fields.

Fields are printed values, never objects, so no line can reach a key or a token. A line is one write, so that
lines of several processes on one stream do not mix. No caller waits for a write (agent.process.sink).

On the stream of systemd's journal a line begins with its priority, `<4>` for a warning, which the journal
takes off the line (sd-daemon(3), `SyslogLevelPrefix=`). A line of text has no time there: the
journal has one.
"""

from __future__ import annotations

from typing import TextIO

import msgspec

from agent.base.clock import Clock
from agent.config.options import LogFormat, LogLevel
from agent.process.sink import Sink

_RANK = {level: rank for rank, level in enumerate(LogLevel)}
_PRIORITY = {LogLevel.DEBUG: 7, LogLevel.INFO: 6, LogLevel.WARN: 4, LogLevel.ERROR: 3}  # syslog(3)
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+.:/@%*,[]")

Field = str | int | float | bool | None


class Log:
    """Writes events of `level` and above. `clock` returns UTC."""

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
        self._worker = worker  # the number of this process, where there are several
        self.level = level

    @property
    def lost(self) -> int:
        """How many lines were lost."""
        return self._sink.lost

    @property
    def problem(self) -> str:
        """Why no line can be written; empty if lines can."""
        return self._sink.problem

    def wants(self, level: LogLevel) -> bool:
        """Return whether a line of that level is written; asked before a connection's fields are made."""
        return _RANK[level] >= _RANK[self.level]

    def write(self, level: LogLevel, event: str, **fields: Field) -> None:
        """Write one line, if the level is wanted."""
        if not self.wants(level):
            return
        # The zone, UTC, is removed first: formatting an offset leaves a string in the interpreter's attribute
        # cache each time, and after a flood of refusals hundreds of them pin a page of memory each.
        ts = self._clock().replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
        if self._worker is not None:
            fields["worker"] = self._worker
        printed = {
            name: _printable(value) for name, value in fields.items() if value is not None and value != ""
        }
        if self._form is LogFormat.JSON:
            line = msgspec.json.encode({"ts": ts, "level": level.value, "event": event, **printed}).decode()
        else:
            words = (f"{name}={_word(value)}" for name, value in printed.items())
            when = () if self._sink.to_journal else (ts,)
            line = " ".join((*when, f"{level.value.upper():5}", event, *words))
        priority = f"<{_PRIORITY[level]}>" if self._sink.to_journal else ""
        self._sink.write(f"{priority}{line}\n")

    async def keep_up(self) -> None:
        """Write lines that had to wait, until cancelled, and log how many were lost."""
        while True:
            lost = await self._sink.caught_up()
            self.write(LogLevel.WARN, "log.lost", lines=lost)


def _printable(value: Field) -> Field:
    """Return the field with what UTF-8 cannot express escaped, such as half a surrogate pair of a path."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _word(value: Field) -> str:
    """Return a value in a line of text: bare if it is one plain word, else quoted as in JSON."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if text and _PLAIN.issuperset(text) else msgspec.json.encode(text).decode()
