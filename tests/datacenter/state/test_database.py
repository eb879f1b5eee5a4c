"""A data directory that cannot be used is refused in one line, with its file and the remedy."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from datacenter.services.agent_self import require_own_store
from datacenter.state.database import StoreUnavailable
from datacenter.state.store import Store
from tests.datacenter.world import settings


def filled(path: Path) -> None:
    store = Store(path)
    for number in range(500):
        store.table("things").put(str(number), {"text": "x" * 100})
    store.close()


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(os.urandom(16384))


def _not_json(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE documents SET value = '{' WHERE key = '7'")


def _not_a_database(path: Path) -> None:
    path.write_bytes(os.urandom(4096))


@pytest.mark.parametrize("damage", [_cut, _overwritten, _not_json, _not_a_database])
def test_a_damaged_file_is_named_with_the_remedy(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "db"
    filled(path)
    damage(path)
    with pytest.raises(StoreUnavailable) as caught:
        Store(path)
    text = str(caught.value)
    assert text.startswith(f"{path} is damaged (")
    assert "put back a copy of it, or move it away" in text
    assert "\n" not in text
    path.unlink()  # the remedy
    Store(path).close()


def test_another_datacenter_s_is_refused_with_the_remedy(tmp_path: Path) -> None:
    own, other = settings("dc1", data_dir=tmp_path), settings("dc2", data_dir=tmp_path)
    store = Store(tmp_path / "db")
    index = store.index_of(("anything",))
    require_own_store(own, store)
    assert store.index_of(("anything",)) == index
    with pytest.raises(StoreUnavailable) as caught:
        require_own_store(other, store)
    store.close()
    remedy = "give dc2 a data-dir of its own, or start this one with -name dc1"
    assert str(caught.value) == f"{tmp_path} is of datacenter dc1, not of dc2: {remedy}"
    again = Store(tmp_path / "db")
    require_own_store(own, again)
    again.close()
