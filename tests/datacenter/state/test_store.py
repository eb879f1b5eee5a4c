"""The store: indexes, transactions, waking, and what a killed process leaves behind."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from datacenter.state.database import StoreUnavailable
from datacenter.state.store import Store


def test_index_is_at_least_one() -> None:
    store = Store()
    assert (store.index, store.table("things").index, store.index_of(())) == (1, 1, 1)


def test_each_write_has_an_index_of_its_own() -> None:
    store = Store()
    things = store.table("things")
    assert [things.put("a", {}), things.put("b", {}), things.put("a", {"n": 1})] == [2, 3, 4]
    row = things.get("a")
    assert row is not None
    assert (row.create_index, row.modify_index, row.value) == (2, 4, {"n": 1})


def test_rows_are_sorted_by_key() -> None:
    things = Store().table("things")
    for key in ("b", "c", "a"):
        things.put(key, {})
    assert [row.key for row in things.rows()] == ["a", "b", "c"]


def test_a_table_does_not_move_with_another() -> None:
    store = Store()
    store.table("things").put("a", {})
    store.table("others").put("a", {})
    assert (store.table("things").index, store.table("others").index) == (2, 3)
    assert store.index_of(("things", "others")) == 3


def test_deleting_moves_the_index_and_absence_does_not() -> None:
    store = Store()
    things = store.table("things")
    things.put("a", {})
    assert things.delete("a")
    assert things.index == 3
    assert not things.delete("a")
    assert things.index == 3


def test_a_quiet_write_moves_nothing() -> None:
    things = Store().table("things")
    things.put("a", {"n": 1})
    things.put("a", {"n": 2}, quiet=True)
    row = things.get("a")
    assert row is not None
    assert (row.value, row.modify_index, things.index) == ({"n": 2}, 2, 2)


def test_a_value_is_copied_when_written() -> None:
    things = Store().table("things")
    value = {"list": [1]}
    things.put("a", value)
    value["list"].append(2)
    row = things.get("a")
    assert row is not None
    assert row.value == {"list": [1]}


def test_large_numbers_survive() -> None:
    things = Store().table("things")
    things.put("a", {"serial": 2**80})
    row = things.get("a")
    assert row is not None
    assert row.value["serial"] == 2**80


def test_rows_do_not_print_their_values() -> None:
    things = Store().table("things")
    things.put("a", {"secret": "hunter2"})
    assert "hunter2" not in repr(things.rows())


def test_a_transaction_has_one_index() -> None:
    store = Store()
    things = store.table("things")
    with store.transaction() as index:
        assert things.put("a", {}) == index
        with store.transaction():
            assert things.put("b", {}) == index
    assert store.index == index == 2


def test_an_empty_transaction_takes_no_index() -> None:
    store = Store()
    with store.transaction():
        pass
    assert store.index == 1
    assert store.table("things").put("a", {}) == 2


def test_a_failed_transaction_leaves_no_trace(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    things = store.table("things")
    things.put("a", {"n": 1})
    store.put_private("key", {"n": 1})

    def fail() -> None:
        with store.transaction():
            things.put("a", {"n": 2})
            things.put("b", {})
            store.touch("topic")
            store.put_private("key", {"n": 2})
            store.put_private("other", {})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    for seen in (store, _reopened(store, tmp_path / "db")):
        assert [row.value for row in seen.table("things").rows()] == [{"n": 1}]
        assert (seen.table("things").index, seen.known("topic")) == (2, False)
        assert (seen.private("key"), seen.private("other")) == ({"n": 1}, None)


def test_a_commit_that_fails_leaves_no_trace() -> None:
    """As with a full disk: what is in memory must not be more than what is on it."""
    store = Store()
    things = store.table("things")
    things.put("a", {"n": 1})
    real = store._connection

    class Full:
        in_transaction = True

        def execute(self, statement: str, *parameters: object) -> object:
            if statement == "COMMIT":
                raise sqlite3.OperationalError("database or disk is full")
            return real.execute(statement, *parameters)  # type: ignore[arg-type]  # as the caller gave them

    store._connection = Full()  # type: ignore[assignment]  # a double of the one method that is used
    with pytest.raises(sqlite3.OperationalError):
        things.put("a", {"n": 2})
    store._connection = real
    assert [row.value for row in things.rows()] == [{"n": 1}]
    assert things.put("b", {}) == 3


def test_topics_are_finer_than_tables() -> None:
    store = Store()
    with store.transaction():
        store.table("things").put("a", {})
        store.touch("thing:a")
    store.table("things").put("b", {})
    assert store.index_of(("thing:a",)) == 2
    assert (store.known("thing:a"), store.known("thing:b")) == (True, False)


def test_private_documents_can_be_removed() -> None:
    store = Store()
    store.put_private("key", {"n": 1})
    store.put_private("key", None)
    assert store.private("key") is None


@pytest.mark.parametrize("successor", [{"n": "another"}, None])
def test_nothing_of_a_replaced_private_document_stays_on_disk(
    tmp_path: Path, successor: dict[str, str] | None
) -> None:
    store = Store(tmp_path / "db")
    secret = "once-upon-a-key" * 300  # several pages
    store.put_private("key", {"n": secret})
    store.table("things").put("a", {})
    assert any(b"once-upon-a-key" in path.read_bytes() for path in tmp_path.iterdir())
    store.put_private("key", successor)
    assert not any(b"once-upon-a-key" in path.read_bytes() for path in tmp_path.iterdir())
    store.close()


async def test_a_write_wakes_who_waits_for_it() -> None:
    store = Store()
    woken: list[str] = []

    async def wait(topic: str) -> None:
        await store.changed((topic,), 1, 60)
        woken.append(topic)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "things")
        nursery.start_soon(wait, "others")
        await wait_all_tasks_blocked()
        store.table("things").put("a", {})
        await wait_all_tasks_blocked()
        assert woken == ["things"]
        nursery.cancel_scope.cancel()


async def test_waiting_ends_with_its_time(autojump_clock: object) -> None:
    store = Store()
    await store.changed(("things",), 1, 5)
    assert trio.current_time() == 5


async def test_a_change_that_has_been_is_not_waited_for(autojump_clock: object) -> None:
    store = Store()
    store.table("things").put("a", {})
    await store.changed(("things",), 1, 5)
    assert trio.current_time() == 0


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    with store.transaction():
        store.table("things").put("a", {"n": 1})
        store.touch("thing:a")
    store.table("things").delete("a")
    store.put_private("key", {"n": 1})
    again = _reopened(store, tmp_path / "db")
    assert again.table("things").rows() == []
    assert (again.table("things").index, again.index_of(("thing:a",))) == (3, 2)
    assert again.private("key") == {"n": 1}


KILLED = """
import sys
from pathlib import Path
from datacenter.state.store import Store
store = Store(Path(sys.argv[1]))
for number in range(100_000):
    with store.transaction():
        store.table("left").put("n", {"n": number})
        store.table("right").put("n", {"n": number})
    if number == 50:
        print("writing", flush=True)
"""


def test_a_killed_process_leaves_whole_transactions(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)
    store = Store(path)
    left, right = store.table("left").get("n"), store.table("right").get("n")
    assert left is not None
    assert right is not None
    assert left.value == right.value
    assert left.value["n"] >= 50
    assert store.index == left.modify_index == right.modify_index
    store.close()


def test_files_are_the_owner_s_alone(tmp_path: Path) -> None:
    store = Store(tmp_path / "data" / "db")
    store.table("things").put("a", {})
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "data").iterdir()}
    assert "db" in modes
    assert set(modes.values()) == {0o600}
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    store.close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    with pytest.raises(StoreUnavailable, match="in use by another datacenter process"):
        Store(tmp_path / "db")
    store.close()


async def test_a_store_that_is_forgotten_is_closed_by_whatever_thread_collects_it(tmp_path: Path) -> None:
    forgotten = [Store(tmp_path / "db")]
    await trio.to_thread.run_sync(forgotten.clear)
    Store(tmp_path / "db").close()  # nobody holds it any more


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="file"):
        Store(tmp_path / "file" / "db")


def test_a_dropped_topic_leaves_its_index_behind(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    store.table("things").put("a", {})
    for topic in ("one", "other"):
        store.touch(topic)
    before = {topic: store.index_of((topic,)) for topic in ("one", "other", "never")}
    store.drop_topics("one", "other")
    for reopened in (store, _reopened(store, tmp_path / "db")):
        assert not reopened.known("one")
        assert reopened.topics() == ["things"]
        assert all(reopened.index_of((topic,)) >= index for topic, index in before.items())
    reopened.touch("one")
    assert reopened.index_of(("one",)) == reopened.index > before["other"]
    reopened.close()


async def test_who_waits_for_a_dropped_topic_wakes_for_its_next_change(autojump_clock: object) -> None:
    store = Store()
    store.touch("one")
    since = store.index
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.changed, ("one",), since, 1000)
        await trio.testing.wait_all_tasks_blocked()
        store.drop_topics("one")
        await trio.sleep(1)
        assert nursery.child_tasks
        store.touch("one")
    assert trio.current_time() < 100


def _reopened(store: Store, path: Path) -> Store:
    store.close()
    return Store(path)
