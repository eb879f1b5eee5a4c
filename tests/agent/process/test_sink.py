"""Standard error whose reader stops: nothing waits, losses are counted, what is kept arrives in order."""

from __future__ import annotations

import fcntl
import io
import os
import socket
import stat
import sys
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import pytest
import trio
import trio.testing

from agent.process.sink import KEPT_BYTES, Sink, never_waiting

LINE = "x" * 99 + "\n"
MORE_THAN_KEPT = KEPT_BYTES // len(LINE) + 1


@contextmanager
def piped() -> Iterator[tuple[int, TextIO]]:
    """The reading end, and a stream of text as standard error is one."""
    read, write = os.pipe()
    with os.fdopen(write, "w") as stream:
        yield read, stream
    with suppress(OSError):
        os.close(read)


@contextmanager
def on_a_socket() -> Iterator[tuple[int, TextIO]]:
    ours, theirs = socket.socketpair()
    with theirs, os.fdopen(ours.detach(), "w") as stream:
        yield theirs.fileno(), stream


@contextmanager
def on_a_terminal() -> Iterator[tuple[int, TextIO]]:
    read, write = os.openpty()
    tty.setraw(write)
    with os.fdopen(write, "w") as stream:
        yield read, stream
    os.close(read)


def everything(read: int) -> str:
    """What can be read now."""
    os.set_blocking(read, False)
    found = b""
    with suppress(BlockingIOError):
        while chunk := os.read(read, 1 << 20):
            found += chunk
    return found.decode()


def fill(sink: Sink) -> int:
    """Write until something is kept; how many lines that were."""
    count = 0
    while not sink.waits:
        sink.write(LINE)
        count += 1
    return count


@pytest.mark.parametrize("kind", [piped, on_a_socket, on_a_terminal])
async def test_a_reader_that_sleeps_stops_no_writer(kind: object) -> None:
    with kind() as (read, stream):  # type: ignore[operator]
        sink = Sink(stream)
        lines = fill(sink) + MORE_THAN_KEPT
        for _ in range(MORE_THAN_KEPT):
            sink.write(LINE)
        assert sink.lost in (1, 2)  # the rest of the first that was not taken whole is kept in any case
        found = everything(read)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sink.finish, 10.0)
            while len(found) < (lines - sink.lost) * len(LINE):
                await trio.lowlevel.wait_readable(read)
                found += everything(read)
        assert found == LINE * (lines - sink.lost)


async def test_who_shares_the_descriptor_does_not_find_it_changed() -> None:
    with piped() as (_, stream):
        fill(Sink(stream))
        assert not fcntl.fcntl(stream.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK


async def test_after_a_loss_it_is_known_how_much_once_the_rest_is_out() -> None:
    with piped() as (read, stream):
        sink = Sink(stream)
        fill(sink)
        for _ in range(MORE_THAN_KEPT):
            sink.write(LINE)
        told: list[int] = []

        async def tell() -> None:
            told.append(await sink.caught_up())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tell)
            while sink.waits:
                await trio.lowlevel.wait_readable(read)
                everything(read)
                await trio.testing.wait_all_tasks_blocked()
        assert told == [sink.lost]


async def test_a_pipe_that_may_not_be_opened_again_is_written_to_when_it_is_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(path: str, flags: int) -> int:
        raise PermissionError(path, flags)

    with piped() as (read, stream):
        monkeypatch.setattr(os, "open", refused)  # a pipe that another user has made
        sink = Sink(stream)
        monkeypatch.undo()
        sink.write("first\n")
        assert everything(read) == ""
        for _ in range(MORE_THAN_KEPT):
            sink.write(LINE)
        await sink.finish(0.1)
        assert everything(read).startswith("first\n" + LINE)
        assert sink.lost


async def test_a_reader_that_has_gone_is_survived_and_counted() -> None:
    with piped() as (read, stream):
        sink = Sink(stream)
        os.close(read)
        sink.write(LINE)
        sink.write(LINE)
        assert (sink.lost, sink.waits) == (2, False)


async def test_a_reader_that_goes_while_lines_are_kept_loses_them() -> None:
    with piped() as (read, stream):
        sink = Sink(stream)
        fill(sink)
        kept_before = sink.lost
        os.close(read)
        await sink.finish(10.0)
        assert (kept_before, sink.lost, sink.waits) == (0, 1, False)


async def test_a_file_is_written_where_others_write_on(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream:
        stream.write("before\n")
        sink = Sink(stream)
        sink.write("ours\n")
        os.write(stream.fileno(), b"after\n")
        assert (sink.fileno(), sink.writable()) == (stream.fileno(), True)
    assert path.read_text() == "before\nours\nafter\n"


def test_text_in_memory_and_text_that_is_none() -> None:
    text = io.StringIO()
    Sink(text).write("ours \udc80\n")
    assert text.getvalue() == "ours \\udc80\n"


def test_a_closed_standard_error_is_a_problem_with_a_name() -> None:
    sink = Sink(None)
    sink.write(LINE)
    assert (sink.lost, sink.problem) == (1, "standard error is closed: the log is lost")
    with pytest.raises(OSError, match="Bad file descriptor"):
        sink.fileno()


def test_all_of_a_process_writes_to_it_and_what_is_kept_has_a_moment_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with piped() as (read, stream):
        monkeypatch.setattr(sys, "stderr", stream)
        with never_waiting() as sink:
            with never_waiting() as same:
                assert sink is same
            count = fill(sink)
            found = everything(read)
        assert sys.stderr is stream
        assert found + everything(read) == LINE * count


def test_a_stream_is_the_journal_s_where_journal_stream_names_it() -> None:
    with on_a_socket() as (_, stream):
        status = os.fstat(stream.fileno())
        theirs = f"{status.st_dev}:{status.st_ino}"
        for named in ("", "1", "1:2:3", f"{status.st_dev}:{status.st_ino + 1}", "a:b"):
            with Sink(stream, named) as sink:
                assert not sink.to_journal, named
        with Sink(stream, theirs) as sink:
            assert sink.to_journal
    assert not Sink(None, theirs).to_journal
    assert not Sink(io.StringIO(), theirs).to_journal


def test_the_kinds_above_are_those_they_are_called() -> None:
    with piped() as (read, _), on_a_socket() as (sock, _), on_a_terminal() as (terminal, _):
        assert stat.S_ISFIFO(os.fstat(read).st_mode)
        assert stat.S_ISSOCK(os.fstat(sock).st_mode)
        assert os.isatty(terminal)
