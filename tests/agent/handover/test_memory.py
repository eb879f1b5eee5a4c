"""States in memory: sealed, one at a time, given up by name."""

from __future__ import annotations

import os

import pytest

from agent.handover.memory import PREFIX, Memory, sealed
from tests.support.descriptor_store import Store


def next_run(store: Store) -> Memory:
    """Return what the next process starts with."""
    return Memory([(name, os.dup(one)) for name, one in store.kept.items()], store)


def test_the_next_process_reads_the_newest_state_and_no_other_is_kept(store: Store) -> None:
    memory = Memory(store=store)
    for text in (b"first", b"second"):
        memory.keep(text)
        assert len(store.kept) == 1
    memory.close()
    after = next_run(store)
    assert after.states() == [b"second"]
    after.keep(b"third")
    assert list(store.kept) == [f"{PREFIX}3"]
    after.forget()
    assert store.kept == {}


def test_a_sealed_file_cannot_be_changed() -> None:
    file = sealed(b"state")
    for change in (
        lambda: os.pwrite(file, b"x", 0),
        lambda: os.ftruncate(file, 2),
        lambda: os.ftruncate(file, 9),
    ):
        with pytest.raises(OSError, match="not permitted"):
            change()
    assert os.pread(file, 10, 0) == b"state"
    os.close(file)


def test_what_could_still_change_or_is_no_such_file_is_not_read(store: Store) -> None:
    loose = os.memfd_create("loose", os.MFD_ALLOW_SEALING)
    reader, writer = os.pipe()
    os.write(loose, b"state")
    memory = Memory([("state-1", loose), ("state-x", reader)], store)
    assert memory.states() == []
    os.close(writer)
    memory.close()


def test_without_a_service_manager_nothing_is_kept() -> None:
    memory = Memory()
    assert not memory.active
    memory.keep(b"x")
    assert memory.states() == []
