"""Writes the lines of the log: hclog's shape as text, hclog's keys as JSON, or journald's own fields.

    2031-05-17T12:00:00.123Z [WARN]  sidecar.inbound: connection.refused: reason=intention_deny peer=…

The module after `sidecar.` is the class of the event, by which it can be silenced (`log_silence`); errors
never are. Fields are printed values, never objects, so no line can reach a key or a token. A line is one
write, so that lines of several processes on one stream do not mix. No caller waits for a write
(agent.process.sink). Lines that repeat are summed (agent.log.repeats), but for those of debug level.

On the stream of systemd's journal a line begins with its priority, `<4>` for a warning, which the journal
takes off the line (sd-daemon(3), `SyslogLevelPrefix=`). A line of text has no time there: the
journal has one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TextIO, TypeAlias

import msgspec
import trio

from agent.base.clock import Clock
from agent.config.options import LogClass, LogFormat, LogLevel
from agent.config.settings import Settings
from agent.log.classes import class_of
from agent.log.next_steps import next_step
from agent.log.repeats import SUM_SECONDS, Repeats
from agent.process.journal import entry, journal_sink
from agent.process.sink import Sink

_RANK = {level: rank for rank, level in enumerate(LogLevel)}
_PRIORITY = {LogLevel.DEBUG: 7, LogLevel.INFO: 6, LogLevel.WARN: 4, LogLevel.ERROR: 3}  # syslog(3)
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+.:/@%*,[]")
# Fields that make two lines of one event differ in kind: our own names, never what a caller chose.
_KIND = ("reason", "upstream", "watch", "purpose", "where", "name", "slot", "bind")

Field: TypeAlias = str | int | float | bool | None
Fields: TypeAlias = dict[str, Field]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """What is written, and in which form.

    `level` and above, but for the events of the classes in `silent`; `connections`: also each connection that
    ends in order; `worker`: the number of this process, where there are several.
    """

    level: LogLevel = LogLevel.INFO
    form: LogFormat = LogFormat.TEXT
    worker: int | None = None
    silent: tuple[LogClass, ...] = ()
    connections: bool = False


DEFAULT_OPTIONS = LogOptions()


def options_of(settings: Settings, worker: int | None = None) -> LogOptions:
    """Return what the settings ask for."""
    return LogOptions(
        level=settings.log_level,
        form=settings.log_format,
        worker=worker,
        silent=settings.log_silence or (),
        connections=settings.connection_log,
    )


class Log:
    """Writes events as `options` say. `clock` returns UTC."""

    def __init__(self, stream: TextIO, clock: Clock, options: LogOptions = DEFAULT_OPTIONS) -> None:
        form = options.form
        journal = journal_sink() if form is LogFormat.JOURNALD else None
        self._sink = journal or (stream if isinstance(stream, Sink) else Sink(stream))
        self._form = LogFormat.TEXT if form is LogFormat.JOURNALD and journal is None else form
        self._clock = clock
        self._options = options
        self._silent = frozenset(options.silent)
        self._repeats: Repeats[tuple[LogLevel, str, Fields]] = Repeats()
        self.level = options.level  # an operator may set another while the agent runs

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
        """Write one line if its level and class are wanted, or count it if there were many of its kind."""
        if not self.wants(level):
            return
        if level is LogLevel.DEBUG:
            self.write_each(level, event, fields)
            return
        hidden = self._repeats.hidden(_kind(event, fields), (level, event, fields))
        if hidden is not None:
            self.write_each(level, event, fields, hidden)

    def is_flooded(self, event: str, **fields: Field) -> bool:
        """Return whether a line of that kind would be left out; asked before a costly field is made."""
        return self._repeats.is_full(_kind(event, fields))

    def write_each(self, level: LogLevel, event: str, fields: Fields, hidden: int = 0) -> None:
        """Write one line, if its class is wanted. `hidden`: how many like it were left out before."""
        kind = class_of(event, fields)
        if level is LogLevel.ERROR:
            fields = {**fields, "next": fields.get("next") or next_step(event)}
        elif kind in self._silent:
            return
        more: Fields = {"hidden": hidden or None, "worker": self._options.worker}
        printed = {
            name: _printable(value)
            for name, value in (fields | more).items()
            if value is not None and value != ""
        }
        self._sink.put(self._line(level, f"sidecar.{kind.value}", event, printed))

    def _line(self, level: LogLevel, module: str, event: str, printed: Fields) -> bytes:
        if self._form is LogFormat.JOURNALD:
            named = {"event": event, "module": module, **printed}
            return entry(_PRIORITY[level], _text(level, module, event, printed), named)
        # The zone, UTC, is removed first: formatting an offset leaves a string in the interpreter's attribute
        # cache each time, and after a flood of refusals hundreds of them pin a page of memory each.
        ts = self._clock().replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
        if self._form is LogFormat.JSON:
            line = _json(ts, level, module, event, printed)
        else:
            when = "" if self._sink.to_journal else f"{ts} "
            line = f"{when}{_text(level, module, event, printed)}".encode()
        priority = f"<{_PRIORITY[level]}>" if self._sink.to_journal else ""
        return b"%b%b\n" % (priority.encode(), line)

    async def keep_up(self) -> None:
        """Write lines that had to wait, and the sums of repeated ones, until cancelled.

        How many lines were lost is a line of its own.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sum_up)
            while True:
                lost = await self._sink.caught_up()
                self.write(LogLevel.WARN, "log.lost", lines=lost)

    async def _sum_up(self) -> None:
        try:
            while True:
                await trio.sleep(SUM_SECONDS)
                self.write_sums()
        finally:
            self.write_sums()

    def write_sums(self) -> None:
        """Write the last line of each kind that was left out, with the count of the others."""
        for (level, event, fields), hidden in self._repeats.sums():
            self.write_each(level, event, fields, hidden)


def _kind(event: str, fields: Fields) -> tuple[Field, ...]:
    return (event, *(fields.get(name) for name in _KIND))


def _json(ts: str, level: LogLevel, module: str, event: str, printed: Fields) -> bytes:
    """Return a line with hclog's keys, and with those that it had before (docs/decisions.md#the-log)."""
    hclog = {"@level": level.value, "@message": event, "@module": module, "@timestamp": ts}
    return msgspec.json.encode({**hclog, "ts": ts, "level": level.value, "event": event, **printed})


def _text(level: LogLevel, module: str, event: str, printed: Fields) -> str:
    words = "".join(f" {name}={_word(value)}" for name, value in printed.items())
    return f"{f'[{level.value.upper()}]':7} {module}: {event}{':' if words else ''}{words}"


def _printable(value: Field) -> Field:
    """Return the field with what UTF-8 cannot express escaped, such as half a surrogate pair of a path."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _word(value: Field) -> str:
    """Return a value in a line of text: bare if it is one plain word, else quoted as in JSON."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if text and _PLAIN.issuperset(text) else msgspec.json.encode(text).decode()
