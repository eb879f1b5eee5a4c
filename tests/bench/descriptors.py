"""What the descriptors of a process lead to, as the kernel lists it: proc(5)."""

from __future__ import annotations

import contextlib
from pathlib import Path

_TABLES = ("tcp", "tcp6")
_REMOTE, _INODE = 2, 9  # columns of a table


def connections_to(pid: int, port: int) -> int:
    """How many sockets of a process have that port at their other end, also where that end has closed."""
    held = sockets(pid)
    rows = [line.split() for table in _TABLES for line in _lines(Path(f"/proc/{pid}/net/{table}"))]
    return sum(row[_REMOTE].endswith(f":{port:04X}") and row[_INODE] in held for row in rows)


def sockets(pid: int) -> set[str]:
    """The inodes of a process's sockets."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            kind, _, inode = str(entry.readlink()).partition(":")
            if kind == "socket":
                found.add(inode.strip("[]"))
    return found


def _lines(table: Path) -> list[str]:
    return table.read_text().splitlines()[1:] if table.exists() else []
