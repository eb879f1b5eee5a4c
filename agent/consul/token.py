"""The ACL token sent to Consul: given, or read anew from its file whenever that changes.

A file may be read while it is being written, and may be written wrongly. What is no token is never sent:
the last good one stays in force, and before there was one nothing is asked of Consul, for a question
without a token would be another question.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from agent.config.parsers import parse_token

MAX_TOKEN = 4096  # bytes; a Consul secret is 36
_NONE = (b"\n", b"\r\n")  # a file that says: no token

Stamp = tuple[int, int, int]


class TokenUnusable(Exception):
    """The token file holds no token; the text names the file and the fault, and nothing of what it holds."""


class TokenSource:
    """The ACL token: a file's trimmed text, read again when the file changes, else the given one.

    `complaint` says what is wrong with the file now; whoever is `on_complaint` hears of each change of that.
    """

    def __init__(self, token: str | None, file: Path | None) -> None:
        self._given = token or ""
        self._file = file
        self._good = ""
        self._seen: Stamp | None = None
        self.on_change: Callable[[], None] = lambda: None
        self.on_complaint: Callable[[str], None] = lambda _: None
        self.complaint = ""

    def __repr__(self) -> str:
        return f"<TokenSource file={self._file}>"

    def current(self) -> str:
        """The token for the next request; empty for none.

        Raises TokenUnusable while the file has never held one. An empty file leaves it to the given token, as
        for Consul's own commands; without one, a file of a single empty line says that there is no token, for
        systemd's credentials (`SetCredential=`) cannot be left out; no bytes at all are a file amid writing.
        """
        if self._file is None:
            return self._given
        try:
            self._look(self._file)
        except TokenUnusable as fault:
            self._complain(str(fault))
            if not self._good:
                raise
        return self._good

    def _look(self, file: Path) -> None:
        data, stamp = _contents(file, self._seen)
        if stamp == self._seen:
            return
        text = _token(file, data)
        if not text and (self._good or not (self._given or data in _NONE)):
            raise TokenUnusable(f"token file {file}: it is empty")
        changed = self._seen is not None and text != self._good
        self._seen, self._good = stamp, text or self._given
        self._complain("")
        if changed:
            self.on_change()

    def _complain(self, complaint: str) -> None:
        if complaint != self.complaint:
            self.complaint = complaint
            self.on_complaint(complaint)


def _contents(file: Path, seen: Stamp | None) -> tuple[bytes, Stamp]:
    """What the file holds and its stamp, unless that is as seen. Raises TokenUnusable."""
    try:
        # A pipe in its place would have to be waited for.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as opened:
            found = os.fstat(descriptor)
            stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
            if not stat.S_ISREG(found.st_mode):
                raise TokenUnusable(f"token file {file}: it is no regular file")
            return (b"" if stamp == seen else opened.read(MAX_TOKEN + 1)), stamp
    except OSError as error:
        raise TokenUnusable(f"token file {file}: {error.strerror}") from error


def _token(file: Path, data: bytes) -> str:
    """The token, empty if there is none. Raises TokenUnusable."""
    if len(data) > MAX_TOKEN:
        raise TokenUnusable(f"token file {file}: it is over {MAX_TOKEN} bytes")
    try:
        text = data.decode("latin-1").strip(" \t\r\n")
        return parse_token(text) if text else ""
    except ValueError as error:
        raise TokenUnusable(f"token file {file}: {error}") from None
