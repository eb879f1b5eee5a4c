"""The deny list's file, watched: read again when it changes. It needs no Consul.

At start a file that cannot be read ends the agent; later the last good list stays in force, and status, log
and metrics say so. It is best replaced by renaming another onto it: a list that is written in place may be
read half written, and is then read again when the rest has come.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import trio

from agent.base.latest import Latest
from agent.policy.deny_list import NO_ENTRIES, DenyList, InvalidDenyList, parse_deny_list

LOOK_SECONDS = 0.25  # a change is in force well within a second
MAX_FILE = 8 << 20  # bytes

Stamp = tuple[int, int, int, int]


class DenyFileUnusable(Exception):
    """The file cannot be read, or not as a deny list."""


class DenyFile:
    """One file and the newest list it held. Without a file the list is empty."""

    def __init__(self, path: Path | None, cell: Latest[DenyList] | None = None) -> None:
        self._path = path
        self._seen: Stamp | None = None
        self.latest = Latest(NO_ENTRIES) if cell is None else cell
        self.complaint = ""

    def __repr__(self) -> str:
        return f"<DenyFile {self._path} entries={len(self.list)}>"

    @property
    def list(self) -> DenyList:
        """What is in force."""
        return self.latest.value or NO_ENTRIES

    def load(self) -> None:
        """Read it for the first time; raise DenyFileUnusable."""
        if self._path is not None:
            self._take(self._path)

    async def follow(self, changed: Callable[[int], None], failed: Callable[[str], None]) -> None:
        """Read it again whenever it changes, for ever; tell how many entries there are, or what is wrong."""
        while self._path is not None:
            await trio.sleep(LOOK_SECONDS)
            self._look(self._path, changed, failed)

    def _look(self, path: Path, changed: Callable[[int], None], failed: Callable[[str], None]) -> None:
        try:
            news = self._take(path)
        except DenyFileUnusable as error:
            if str(error) != self.complaint:
                self.complaint = str(error)
                failed(self.complaint)
            return
        if news:
            self.complaint = ""
            changed(len(self.list))

    def _take(self, path: Path) -> bool:
        """Publish what the file holds, if it is not what was read last; whether it was read."""
        try:
            stamp = _stamp(path.stat())
            if stamp == self._seen:
                return False
            with path.open("rb") as file:
                stamp = _stamp(os.fstat(file.fileno()))
                data = file.read(MAX_FILE + 1)
        except OSError as error:
            self._seen = None  # when it is back, it is read even if it is the same
            raise DenyFileUnusable(f"{path} cannot be read: {error.strerror}") from error
        self._seen = stamp
        if len(data) > MAX_FILE:
            raise DenyFileUnusable(f"{path} is over {MAX_FILE} bytes")
        try:
            self.latest.publish(parse_deny_list(data.decode()))
        except (InvalidDenyList, UnicodeDecodeError) as error:
            raise DenyFileUnusable(f"{path} is no deny list: {error}") from error
        return True


def _stamp(stat: os.stat_result) -> Stamp:
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_size
