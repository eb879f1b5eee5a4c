"""Watches the file of the deny list, and reads it again when it changes; needs no Consul.

At start an unreadable file ends the agent. Later the last good list stays in force, which status, log and
metrics report. The file is best replaced by renaming another one onto it: a list that is written in place may
be read incomplete, and is read again when the rest has come.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import trio

from agent.base.latest import Latest
from agent.policy.deny_list import NO_ENTRIES, DenyList, InvalidDenyList, parse_deny_list

LOOK_SECONDS = 0.25  # so that a change is in force within a second
MAX_FILE = 8 << 20  # bytes

Stamp = tuple[int, int, int, int]


class DenyFileUnusable(Exception):
    """The file cannot be read, or is no deny list."""


class DenyFile:
    """The file and the newest list it held. Without a file the list is empty."""

    def __init__(self, path: Path | None, cell: Latest[DenyList] | None = None) -> None:
        self._path = path
        self._seen: Stamp | None = None
        self.latest = Latest(NO_ENTRIES) if cell is None else cell
        self.complaint = ""

    def __repr__(self) -> str:
        return f"<DenyFile {self._path} entries={len(self.list)}>"

    @property
    def list(self) -> DenyList:
        """The list in force."""
        return self.latest.value or NO_ENTRIES

    def load(self) -> None:
        """Read the file for the first time. Raises DenyFileUnusable."""
        if self._path is not None:
            self._take(self._path)

    async def follow(self, changed: Callable[[int], None], failed: Callable[[str], None]) -> None:
        """Read the file again at each change, until cancelled; report the entries, or what is wrong."""
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
        """Publish the file's content if the file has changed; return whether it was read."""
        try:
            stamp = _stamp(path.stat())
            if stamp == self._seen:
                return False
            with path.open("rb") as file:
                stamp = _stamp(os.fstat(file.fileno()))
                data = file.read(MAX_FILE + 1)
        except OSError as error:
            self._seen = None  # when the file is back it is read, even if it is the same
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
