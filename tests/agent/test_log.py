"""The form of a line of the log."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime

from agent.log import Log
from agent.options import LogFormat, LogLevel

START = datetime(2031, 5, 17, 12, 0, 0, 123456, tzinfo=UTC)


def log_of(level: LogLevel = LogLevel.DEBUG, form: LogFormat = LogFormat.TEXT) -> tuple[Log, io.StringIO]:
    written = io.StringIO()
    return Log(written, lambda: START, level=level, form=form), written


def lines(written: io.StringIO) -> list[str]:
    """Without the time."""
    return [line.partition(" ")[2] for line in written.getvalue().splitlines()]


def test_a_line_of_text() -> None:
    log, written = log_of()
    log.write(
        LogLevel.INFO, "event", plain="a-b.c:1", spaced="two words", number=3, yes=True, none=None, empty=""
    )
    assert written.getvalue() == (
        '2031-05-17T12:00:00.123Z INFO  event plain=a-b.c:1 spaced="two words" number=3 yes=true\n'
    )


def test_a_line_of_text_stays_one_line() -> None:
    log, written = log_of()
    log.write(LogLevel.WARN, "event", hostile='a\nb"c\x1b[31m')
    assert lines(written) == ['WARN  event hostile="a\\nb\\"c\\u001b[31m"']


def test_a_line_of_json() -> None:
    log, written = log_of(form=LogFormat.JSON)
    log.write(LogLevel.ERROR, "event", text="a\nb", number=3, none=None)
    assert json.loads(written.getvalue()) == {
        "ts": "2031-05-17T12:00:00.123Z",
        "level": "error",
        "event": "event",
        "text": "a\nb",
        "number": 3,
    }


def test_what_is_less_important_than_wanted_is_not_written() -> None:
    log, written = log_of(LogLevel.WARN)
    log.write(LogLevel.INFO, "quiet")
    log.write(LogLevel.WARN, "loud")
    assert lines(written) == ["WARN  loud"]


def test_a_broken_standard_error_is_counted_and_survived() -> None:
    log, written = log_of()
    written.close()
    log.write(LogLevel.WARN, "nobody", hears=True)
    assert log.lost == 1
