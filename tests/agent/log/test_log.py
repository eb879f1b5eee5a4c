"""The form of a line of the log."""

from __future__ import annotations

import io
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
import trio

from agent.config.options import LogFormat, LogLevel
from agent.log.log import Log, LogOptions
from agent.process.journal import journal_sink
from agent.process.sink import Sink

START = datetime(2031, 5, 17, 12, 0, 0, 123456, tzinfo=UTC)


def log_of(level: LogLevel = LogLevel.DEBUG, form: LogFormat = LogFormat.TEXT) -> tuple[Log, io.StringIO]:
    written = io.StringIO()
    return Log(written, lambda: START, LogOptions(level=level, form=form)), written


@contextmanager
def on_the_journal() -> Iterator[tuple[Sink, socket.socket]]:
    """A log's sink on a stream that JOURNAL_STREAM names, and the journal's end."""
    ours, journal = socket.socketpair()
    with ours, journal, ours.makefile("w") as stream:
        status = os.fstat(ours.fileno())
        with Sink(stream, f"{status.st_dev}:{status.st_ino}") as sink:
            yield sink, journal


def lines(written: io.StringIO) -> list[str]:
    """Without the time."""
    return [line.partition(" ")[2] for line in written.getvalue().splitlines()]


def test_a_line_of_text() -> None:
    log, written = log_of()
    log.write(
        LogLevel.INFO, "event", plain="a-b.c:1", spaced="two words", number=3, yes=True, none=None, empty=""
    )
    assert written.getvalue() == (
        "2031-05-17T12:00:00.123Z [INFO]  sidecar.process: event:"
        ' plain=a-b.c:1 spaced="two words" number=3 yes=true\n'
    )


def test_a_line_of_text_stays_one_line() -> None:
    log, written = log_of()
    log.write(LogLevel.WARN, "event", hostile='a\nb"c\x1b[31m')
    assert lines(written) == ['[WARN]  sidecar.process: event: hostile="a\\nb\\"c\\u001b[31m"']


def test_a_line_of_json() -> None:
    log, written = log_of(form=LogFormat.JSON)
    log.write(LogLevel.ERROR, "event", text="a\nb", number=3, none=None)
    assert json.loads(written.getvalue()) == {
        "@level": "error",
        "@message": "event",
        "@module": "sidecar.process",
        "@timestamp": "2031-05-17T12:00:00.123Z",
        "ts": "2031-05-17T12:00:00.123Z",
        "level": "error",
        "event": "event",
        "text": "a\nb",
        "number": 3,
    }


@pytest.mark.parametrize(
    ("level", "priority"),
    [(LogLevel.DEBUG, 7), (LogLevel.INFO, 6), (LogLevel.WARN, 4), (LogLevel.ERROR, 3)],
)
def test_a_line_for_the_journal_has_a_priority_and_no_time_of_its_own(level: LogLevel, priority: int) -> None:
    with on_the_journal() as (sink, journal):
        Log(sink.stream, lambda: START, LogOptions(level=LogLevel.DEBUG)).write(level, "event", number=3)
        line = f"{f'[{level.upper()}]':7} sidecar.process: event: number=3"
        assert journal.recv(1000).decode() == f"<{priority}>{line}\n"


def test_a_line_of_json_for_the_journal_is_json_behind_its_priority() -> None:
    with on_the_journal() as (sink, journal):
        Log(sink.stream, lambda: START, LogOptions(form=LogFormat.JSON)).write(
            LogLevel.WARN, "event", number=3
        )
        priority, line = journal.recv(1000).decode().split(">", 1)
    assert priority == "<4"
    assert json.loads(line) == {
        "@level": "warn",
        "@message": "event",
        "@module": "sidecar.process",
        "@timestamp": "2031-05-17T12:00:00.123Z",
        "ts": "2031-05-17T12:00:00.123Z",
        "level": "warn",
        "event": "event",
        "number": 3,
    }


def test_what_is_less_important_than_wanted_is_not_written() -> None:
    log, written = log_of(LogLevel.WARN)
    log.write(LogLevel.INFO, "quiet")
    log.write(LogLevel.WARN, "loud")
    assert lines(written) == ["[WARN]  sidecar.process: loud"]


def test_a_broken_standard_error_is_counted_and_survived() -> None:
    log, written = log_of()
    written.close()
    log.write(LogLevel.WARN, "nobody", hears=True)
    assert log.lost == 1


async def test_what_was_lost_is_said_once_there_is_a_reader_again() -> None:
    read, write = os.pipe()
    with os.fdopen(write, "w") as stream:
        log = Log(stream, lambda: START)
        while not log.lost:
            log.write_each(LogLevel.INFO, "event", {"text": "x" * 1000})
        for _ in range(4):
            log.write_each(LogLevel.INFO, "event", {"text": "x" * 1000})
        text = b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.keep_up)
            while b"log.lost" not in text:
                await trio.lowlevel.wait_readable(read)
                text += os.read(read, 1 << 20)
            nursery.cancel_scope.cancel()
    os.close(read)
    told = text.decode().splitlines()
    assert {line.split()[4].partition("=")[0] for line in told[:-1]} == {"text"}
    assert told[-1].endswith(" [WARN]  sidecar.process: log.lost: lines=5")


@pytest.fixture
def journald(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """journald's socket, for entries."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        monkeypatch.setattr("agent.log.log.journal_sink", partial(journal_sink, path))
        yield sock


def test_an_entry_of_the_journal_has_each_field(journald: socket.socket) -> None:
    log, written = log_of(form=LogFormat.JOURNALD)
    log.write(LogLevel.WARN, "connection.refused", direction="inbound", reason="default_deny", rule="a => b")
    message = "[WARN]  sidecar.inbound: connection.refused: direction=inbound reason=default_deny"
    message += ' rule="a => b"'
    assert journald.recv(4096).decode().splitlines() == [
        "PRIORITY=4",
        "SYSLOG_IDENTIFIER=sidecar",
        f"MESSAGE={message}",
        "SIDECAR_EVENT=connection.refused",
        "SIDECAR_MODULE=sidecar.inbound",
        "SIDECAR_DIRECTION=inbound",
        "SIDECAR_REASON=default_deny",
        "SIDECAR_RULE=a => b",
    ]
    assert written.getvalue() == ""


def test_without_journald_its_form_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.log.log.journal_sink", lambda: None)
    log, written = log_of(form=LogFormat.JOURNALD)
    log.write(LogLevel.INFO, "event", number=3)
    assert lines(written) == ["[INFO]  sidecar.process: event: number=3"]
