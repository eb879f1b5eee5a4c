"""The state as a file in memory, sealed, which the service manager keeps (memfd_create(2), sd_notify(3)).

A seal forbids every later change, to us as well: each state is a file of its own, and the older one is given
up once the newer one is kept. Nothing of it is on a disk.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from contextlib import ExitStack, suppress

from agent.net.kept import DescriptorStore

PREFIX = "state-"  # of the names of these files with the service manager
MOST_BYTES = 64 << 20
_NOEXEC = 0x8  # MFD_NOEXEC_SEAL, Linux 6.3 and later
# Of linux/fcntl.h; Python 3.11 has no names for them.
_ADD_SEALS, _GET_SEALS = 1033, 1034
_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # SEAL, SHRINK, GROW, WRITE


class Memory:
    """The files of one service. `named`: those that the service manager has handed over."""

    def __init__(self, named: Iterable[tuple[str, int]] = (), store: DescriptorStore | None = None) -> None:
        self._kept = dict(named)
        self._store = store
        numbers = [name.removeprefix(PREFIX) for name in self._kept]
        self._number = max((int(one) for one in numbers if one.isdigit()), default=0)

    @property
    def active(self) -> bool:
        """Whether there is a service manager to keep a state."""
        return self._store is not None

    def descriptors(self) -> list[tuple[str, int]]:
        """Return what is kept, by name."""
        return list(self._kept.items())

    def states(self) -> list[bytes]:
        """Return the states that were handed over. Files that may still change are left out."""
        return [text for one in self._kept.values() if (text := _read(one)) is not None]

    def keep(self, text: bytes) -> None:
        """Have this state kept instead of every other. Raises OSError."""
        if self._store is None:
            return
        self._number += 1
        name, before = f"{PREFIX}{self._number}", self._kept
        file = sealed(text)
        self._kept = {name: file}
        self._store.store(name, file)
        self._give_up(before)

    def forget(self) -> None:
        """Have no state kept."""
        before, self._kept = self._kept, {}
        self._give_up(before)

    def close(self) -> None:
        """Close our descriptors; the service manager keeps its own."""
        for descriptor in self._kept.values():
            os.close(descriptor)
        self._kept = {}

    def _give_up(self, files: dict[str, int]) -> None:
        for name, descriptor in files.items():
            os.close(descriptor)
            if self._store is not None:
                self._store.unstore(name)


def sealed(text: bytes) -> int:
    """Return the descriptor of a file in memory that nothing can change any more. Raises OSError."""
    with ExitStack() as unsealed:
        descriptor = _created()
        unsealed.callback(os.close, descriptor)
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(text)
        fcntl.fcntl(descriptor, _ADD_SEALS, _SEALS)
        unsealed.pop_all()
    return descriptor


def _created() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    with suppress(OSError):  # an older kernel does not know the flag
        return os.memfd_create("connect-sidecar", flags | _NOEXEC)
    return os.memfd_create("connect-sidecar", flags)


def _read(descriptor: int) -> bytes | None:
    """Return the content of a file in memory; None if it could change, or is none."""
    try:
        if fcntl.fcntl(descriptor, _GET_SEALS) & _SEALS != _SEALS:
            return None
        size = os.fstat(descriptor).st_size
        return os.pread(descriptor, size, 0) if size <= MOST_BYTES else None
    except OSError:
        return None
