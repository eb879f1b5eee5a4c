"""Entries by journald's own protocol: lines in a value, long entries, and a journald that takes none."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from agent.process.journal import entry, journal_sink


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "socket")


@pytest.fixture
def journald(path: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        yield sock


def read(entry: bytes) -> dict[str, str]:
    """An entry as the protocol's description has it read."""
    found = {}
    while entry:
        head, _, entry = entry.partition(b"\n")
        name, equals, value = head.partition(b"=")
        if not equals:
            size = int.from_bytes(entry[:8], "little")
            value, entry = entry[8 : 8 + size], entry[8 + size + 1 :]
        found[name.decode()] = value.decode()
    return found


def test_a_value_of_several_lines_stays_one_field() -> None:
    found = read(entry(3, "message", {"trace": "a\nMESSAGE=forged\nb", "number": 5}))
    assert found == {
        "PRIORITY": "3",
        "SYSLOG_IDENTIFIER": "sidecar",
        "MESSAGE": "message",
        "SIDECAR_TRACE": "a\nMESSAGE=forged\nb",
        "SIDECAR_NUMBER": "5",
    }


def test_without_journald_there_is_no_sink(path: str) -> None:
    assert journal_sink(path) is None


def test_an_entry_too_long_for_a_datagram_comes_as_a_file(path: str, journald: socket.socket) -> None:
    long = entry(6, "x" * 2_000_000, {})
    sink = journal_sink(path)
    assert sink is not None
    with sink:
        sink.put(long)
    data, (descriptor,), _, _ = socket.recv_fds(journald, 4096, 1)
    assert data == b""
    try:
        assert os.pread(descriptor, len(long) + 1, 0) == long
    finally:
        os.close(descriptor)


async def test_a_full_journal_makes_no_writer_wait_and_gets_the_rest_in_order(
    path: str, journald: socket.socket
) -> None:
    journald.setblocking(False)
    sink = journal_sink(path)
    assert sink is not None
    with sink:
        sent = 0
        while not sink.waits:
            sink.put(entry(6, str(sent), {}))
            sent += 1
        assert sink.lost == 0
        found: list[str] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sink.caught_up)
            while len(found) < sent:
                await trio.lowlevel.wait_readable(journald)
                found.append(read(journald.recv(4096))["MESSAGE"])
            nursery.cancel_scope.cancel()
    assert found == [str(number) for number in range(sent)]


def test_a_journald_that_has_started_again_gets_the_next_entry(path: str, journald: socket.socket) -> None:
    sink = journal_sink(path)
    assert sink is not None
    with sink, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        journald.close()
        Path(path).unlink()
        other.bind(path)
        sink.put(entry(6, "again", {}))
        assert read(other.recv(4096))["MESSAGE"] == "again"
