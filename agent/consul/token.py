"""The ACL token sent to Consul: given, or read anew from its file whenever that changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

MAX_TOKEN = 4096  # bytes; a Consul secret is 36


class TokenSource:
    """The ACL token: a file's trimmed text, read again when the file changes, else the given one.

    A file that was readable at start and is gone now leaves the last token in force; `complaint` says so.
    """

    def __init__(self, token: str | None, file: Path | None) -> None:
        self._given = token or ""
        self._file = file
        self._read = ""
        self._seen: tuple[int, int, int] | None = None
        self.on_change: Callable[[], None] = lambda: None
        self.complaint = ""

    def __repr__(self) -> str:
        return f"<TokenSource file={self._file}>"

    def current(self) -> str:
        """The token for the next request; empty for none."""
        if self._file is not None:
            self._look(self._file)
        return self._read or self._given

    def _look(self, file: Path) -> None:
        try:
            stat = file.stat()
            stamp = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if stamp == self._seen:
                return
            with file.open("rb") as opened:
                text = opened.read(MAX_TOKEN).decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not ASCII text"
            self.complaint = f"token file {file}: {why}"
            return
        changed = self._seen is not None and text != self._read
        self._seen, self._read, self.complaint = stamp, text, ""
        if changed:
            self.on_change()
