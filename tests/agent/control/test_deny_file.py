"""The deny list's file: read at start or not at all, read again when it changes, never forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from agent.control import deny_file
from agent.control.deny_file import DenyFile, DenyFileUnusable

ENTRY = "spiffe://x.consul/ns/default/dc/dc1/svc/{}\n"


class Told:
    """What is told of a file."""

    def __init__(self) -> None:
        self.changes: list[int] = []
        self.failures: list[str] = []


async def following(nursery: trio.Nursery, path: Path) -> tuple[DenyFile, Told]:
    file, told = DenyFile(path), Told()
    file.load()
    nursery.start_soon(file.follow, told.changes.append, told.failures.append)
    await trio.sleep(1)
    assert (told.changes, told.failures) == ([], [])
    return file, told


async def test_without_a_file_there_is_nobody() -> None:
    file, told = DenyFile(None), Told()
    file.load()
    await file.follow(told.changes.append, told.failures.append)  # there is nothing to follow
    assert (len(file.list), repr(file)) == (0, "<DenyFile None entries=0>")


@pytest.mark.parametrize("content", [None, b"nonsense\n", b"\xff\n"])
def test_no_start_with_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "denied"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DenyFileUnusable, match=str(path)):
        DenyFile(path).load()


async def test_a_change_is_taken_within_a_second(
    nursery: trio.Nursery, autojump_clock: MockClock, tmp_path: Path
) -> None:
    path = tmp_path / "denied"
    path.write_text(ENTRY.format("a"))
    file, told = await following(nursery, path)
    other = tmp_path / "new"
    other.write_text(ENTRY.format("a") + ENTRY.format("b"))
    other.replace(path)
    await trio.sleep(0.5)
    assert (told.changes, len(file.list), file.latest.version) == ([2], 2, 3)
    path.write_text("")
    await trio.sleep(0.5)
    assert (told.changes, len(file.list)) == ([2, 0], 0)


@pytest.mark.parametrize("harm", ["malformed", "gone", "too large"])
async def test_the_last_good_list_stays(
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    tmp_path: Path,
    harm: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "denied"
    path.write_text(ENTRY.format("a"))
    file, told = await following(nursery, path)
    if harm == "malformed":
        path.write_text("nonsense\n")
    elif harm == "gone":
        path.unlink()
    else:
        monkeypatch.setattr(deny_file, "MAX_FILE", 10)
        path.write_text(ENTRY.format("bb"))
    await trio.sleep(3)
    assert (told.changes, len(file.list)) == ([], 1)
    (failure,) = told.failures  # once, not at every look
    assert failure == file.complaint != ""
    monkeypatch.undo()
    path.write_text(ENTRY.format("a"))
    await trio.sleep(1)
    assert (told.changes, file.complaint) == ([1], "")
