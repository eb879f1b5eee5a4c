"""The token file: what is no token is never sent, and the last good one stays."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from agent.consul.api import Consul
from agent.consul.errors import ConsulError, ConsulReason
from agent.consul.http import Client
from agent.consul.token import MAX_TOKEN, TokenSource, TokenUnusable
from tests.support.fake_consul import FakeConsul

ROOTS = "/v1/agent/connect/ca/roots"


def changes(source: TokenSource) -> Callable[[], int]:
    heard: list[None] = []
    source.on_change = lambda: heard.append(None)
    return lambda: len(heard)


def test_a_given_token() -> None:
    assert TokenSource("s3cret", None).current() == "s3cret"
    assert TokenSource(None, None).current() == ""
    assert "s3cret" not in repr(TokenSource("s3cret", None))


def test_a_file_wins_unless_it_is_empty(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("  from the file\n")
    assert TokenSource("given", file).current() == "from the file"
    file.write_text("\n")
    source = TokenSource("given", file)
    assert (source.current(), source.complaint) == ("given", "")


def test_one_empty_line_says_that_there_is_no_token_and_never_takes_one_away(tmp_path: Path) -> None:
    """The unit's credential, where no token was written (systemd.exec(5), SetCredential=)."""
    file = tmp_path / "token"
    file.write_text("\n")
    source = TokenSource(None, file)
    heard = changes(source)
    assert (source.current(), source.complaint) == ("", "")
    file.write_text("first")
    assert (source.current(), heard()) == ("first", 1)
    file.write_text("\n")
    assert (source.current(), source.complaint) == ("first", f"token file {file}: it is empty")


def test_a_changed_file_is_told_once(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    source = TokenSource(None, file)
    heard = changes(source)
    source.current()
    source.current()
    assert heard() == 0
    file.write_text("the second")
    assert (source.current(), source.current(), heard()) == ("the second", "the second", 1)


def test_a_file_replaced_within_a_tick_of_its_clock_is_read_anew(tmp_path: Path) -> None:
    """Renamed into place, as long as the one before, and of the same moment."""
    file, beside = tmp_path / "token", tmp_path / "beside"
    file.write_text("first")
    beside.write_text("other")
    source = TokenSource(None, file)
    assert source.current() == "first"
    was = file.stat()
    os.utime(beside, ns=(was.st_atime_ns, was.st_mtime_ns))
    beside.rename(file)
    assert source.current() == "other"


def test_a_file_rewritten_within_a_tick_of_its_clock_is_read_anew_by_its_size(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    source = TokenSource(None, file)
    assert source.current() == "first"
    was = file.stat()
    file.write_text("the second")
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert source.current() == "the second"


FAULTS: list[tuple[bytes, str]] = [
    (b"", "it is empty"),  # caught while it is written
    (b" \r\n\n", "it is empty"),
    (b"one\ntwo\n", "it has more than one line"),
    (b"one\rtwo", "it has more than one line"),
    (b"one\0two", "it is not one line of visible ASCII characters"),
    (b"one\x1btwo", "it is not one line of visible ASCII characters"),
    (b"one\x0btwo", "it has more than one line"),
    (b"tok\xc3\xa9n", "it is not one line of visible ASCII characters"),
    (b"\xff\xfet\0o\0", "it is not one line of visible ASCII characters"),
    (b"\xef\xbb\xbftoken", "it is not one line of visible ASCII characters"),
    (b"x" * (MAX_TOKEN + 1), "it is over 4096 bytes"),
]


@pytest.mark.parametrize(("data", "fault"), FAULTS)
def test_what_is_no_token_leaves_the_last_good_one(tmp_path: Path, data: bytes, fault: str) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    source = TokenSource("given", file)
    heard: list[str] = []
    source.on_complaint = heard.append
    source.current()
    file.write_bytes(data)
    assert (source.current(), source.current()) == ("first", "first")
    assert source.complaint == f"token file {file}: {fault}"
    file.write_text("another")
    assert (source.current(), source.complaint) == ("another", "")
    assert heard == [f"token file {file}: {fault}", ""]


@pytest.mark.parametrize("given", [None, "given"])
@pytest.mark.parametrize(("data", "fault"), FAULTS)
def test_before_there_was_a_token_nothing_is_asked_without_one(
    tmp_path: Path, given: str | None, data: bytes, fault: str
) -> None:
    """Only an empty file leaves it to the given token, as for Consul's own commands."""
    file = tmp_path / "token"
    file.write_bytes(data)
    source = TokenSource(given, file)
    if given and fault == "it is empty":
        assert source.current() == given
        return
    with pytest.raises(TokenUnusable, match=fault):
        source.current()
    file.write_text("written at last\n")
    assert (source.current(), source.complaint) == ("written at last", "")


def test_a_file_that_is_gone_or_no_file_any_more_leaves_the_last_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    source = TokenSource("given", file)
    source.current()
    file.unlink()
    assert source.current() == "first"
    assert source.complaint == f"token file {file}: No such file or directory"
    os.mkfifo(file)  # nobody writes there: to wait for it would be to wait for ever
    assert source.current() == "first"
    assert source.complaint == f"token file {file}: it is no regular file"
    file.unlink()
    file.mkdir()
    assert source.current() == "first"
    file.rmdir()
    file.write_text("back again")
    assert (source.current(), source.complaint) == ("back again", "")


def test_a_complaint_shows_nothing_of_what_the_file_holds(tmp_path: Path) -> None:
    file = tmp_path / "token"
    for data, _ in FAULTS:
        file.write_bytes(b"s3cret" + data + b"\ns3cret")
        with pytest.raises(TokenUnusable) as caught:
            TokenSource(None, file).current()
        assert "s3cret" not in str(caught.value)


async def test_a_token_that_is_none_is_a_named_failure_and_no_request(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"one\ntwo\n")
    scripted = FakeConsul()
    scripted.client(nursery)
    consul = Consul(Client(scripted.dial, host="consul"), TokenSource(None, file))
    scripted.answer(ROOTS, {})
    with pytest.raises(ConsulError) as caught:
        await consul.roots()
    assert caught.value.reason is ConsulReason.NOT_ASKED
    assert not scripted.asked
    file.write_text("one\n")
    await consul.roots()
    assert [asked.headers["x-consul-token"] for asked in scripted.asked] == ["one"]
