"""Looking is counted in bytes, whatever was cut or joined before."""

from __future__ import annotations

from tests.fuzz.metered import Metered


def test_what_is_looked_at_is_counted() -> None:
    Metered.looked = 0
    data = b"ab" + Metered(b"cd") + b"ef"
    assert isinstance(data, Metered)
    assert data.find(b"x") == -1
    assert Metered.looked == 6
    assert data[2:].find(b"d") == 1
    assert Metered.looked == 6 + 2
    assert data.count(b"a", 3) == 0
    assert Metered.looked == 6 + 2 + 3
