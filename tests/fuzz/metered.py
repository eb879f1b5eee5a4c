"""Bytes that count how many of them are looked at: linear work is told from quadratic without a clock."""

from __future__ import annotations

from typing import Any, SupportsIndex

Place = SupportsIndex | None


class Metered(bytes):
    """What is cut from it or added to it counts too. `looked` is of all there are; set it to 0 before use."""

    looked = 0

    def find(self, sub: Any, start: Place = None, end: Place = None, /) -> int:
        found = super().find(sub, start, end)
        self._count(start, end if found < 0 else found + 1)
        return found

    def count(self, sub: Any, start: Place = None, end: Place = None, /) -> int:
        self._count(start, end)
        return super().count(sub, start, end)

    def __getitem__(self, key: Any, /) -> Any:
        found = super().__getitem__(key)
        return Metered(found) if isinstance(found, bytes) else found

    def __add__(self, other: Any, /) -> bytes:
        return Metered(super().__add__(other))

    def __radd__(self, other: bytes, /) -> bytes:
        return Metered(other + bytes(self))

    def _count(self, start: Place, end: Place) -> None:
        begin, stop, _ = slice(start, end).indices(len(self))
        Metered.looked += max(0, stop - begin)
