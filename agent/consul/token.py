"""The ACL token for Consul: given as a setting, or read from a file whenever the file changes.

A file may be read while it is being written, and may be written wrongly. Text that is not a token is never
sent: the last good token stays in force. Before there was a good one no request is sent at all, since a
request without a token would get another answer (that of the anonymous token).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from agent.config.parsers import parse_token

MAX_TOKEN = 4096  # bytes; a Consul secret is 36
_NONE = (b"\n", b"\r\n")  # contents that mean: no token

Stamp = tuple[int, int, int]


class TokenUnusable(Exception):
    """The token file holds no token; the text names file and fault, and quotes no content."""


class TokenSource:
    """The ACL token: the trimmed text of a file, read again when the file changes, else the setting.

    `complaint` says what is wrong with the file now; `on_complaint` is called with each change of it.
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
        """Return the token for the next request; empty for none.

        Raises TokenUnusable while the file has never held a token. An empty file defers to the setting, as in
        Consul's own commands. Without a setting a file of one empty line means that there is no token, since
        systemd's credentials (`SetCredential=`) cannot be absent; a file of no bytes is being written.
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
    """Return the file's content and stamp; no content if the stamp is `seen`. Raises TokenUnusable."""
    try:
        # O_NONBLOCK: opening a pipe in the file's place would wait for its writer.
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
    """Return the token in the data; empty if there is none. Raises TokenUnusable."""
    if len(data) > MAX_TOKEN:
        raise TokenUnusable(f"token file {file}: it is over {MAX_TOKEN} bytes")
    try:
        text = data.decode("latin-1").strip(" \t\r\n")
        return parse_token(text) if text else ""
    except ValueError as error:
        raise TokenUnusable(f"token file {file}: {error}") from None
