"""A datacenter killed between any two steps comes back in a legal state, and converges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from datacenter.ca.authority import ROOTS
from datacenter.ca.keys import generate_key
from datacenter.federation import endpoints as federation
from datacenter.federation.secondary import State
from datacenter.state.store import Document, Store, Table
from tests.datacenter.sites import (
    Killed,
    Site,
    Wan,
    assert_mutual_trust,
    running,
)

ROTATE = "/v1/connect/ca/rotate"


@pytest.mark.parametrize(
    "moment",
    ["before the request", "after the request", "before the roots", "before the key", "after the key"],
)
@pytest.mark.parametrize("situation", ["joining", "rotating"])
async def test_killed_between_the_steps_it_comes_back_legal_and_converges(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, situation: str
) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2", path=tmp_path / "dc2")
    async with trio.open_nursery() as nursery:
        await nursery.start(federation.run, dc1.dc)
        if situation == "rotating":
            async with running(dc2):
                assert dc2.standing == (State.JOINED, "")
            await dc1.put(ROTATE)
        _arm(monkeypatch, moment)
        with pytest.raises(BaseExceptionGroup) as caught:
            await federation.run(dc2.dc)
        assert caught.group_contains(Killed)
        monkeypatch.undo()
        dc2.dc.store.close()
        dc2 = wan.site("dc2", path=tmp_path / "dc2")
        _assert_legal(dc2, situation)
        await nursery.start(federation.run, dc2.dc)
        await trio.sleep(1)
        await assert_mutual_trust(dc1, dc2)
        nursery.cancel_scope.cancel()
    dc2.dc.store.close()


def _arm(monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    def die(*_: object, **__: object) -> None:
        raise Killed

    put_private, write = Store.put_private, Store.write

    def die_after(store: Store, key: str, value: Document | None) -> None:
        put_private(store, key, value)
        raise Killed

    def die_at_roots(store: Store, table: Table, *rest: Any, **more: Any) -> int:
        if table.name == ROOTS:
            raise Killed
        return write(store, table, *rest, **more)

    match moment:
        case "before the request":
            monkeypatch.setattr("datacenter.federation.secondary.intermediate_request", die)
        case "after the request":
            monkeypatch.setattr("datacenter.federation.secondary.check_intermediate", die)
        case "before the roots":
            monkeypatch.setattr(Store, "write", die_at_roots)
        case "before the key":
            monkeypatch.setattr(Store, "put_private", die)
        case _:
            monkeypatch.setattr(Store, "put_private", die_after)


def _assert_legal(site: Site, situation: str) -> None:
    """Empty, or signing with the key of its signing certificate: nothing else is legal on disk."""
    if situation == "joining":
        assert site.ca.trust is None
        return
    signer = site.ca.signer()
    assert signer.key.public_key() == signer.certificate.public_key()


@pytest.mark.parametrize("moment", ["before the roots", "before the key", "after the key"])
async def test_a_primary_killed_within_its_rotation_has_rotated_or_not(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1", path=tmp_path / "dc1"), wan.site("dc2")
    async with running(dc1, dc2):
        before = dc1.trust.active.id
        _arm(monkeypatch, moment)
        with pytest.raises(Killed):
            dc1.ca.rotate(generate_key())
        monkeypatch.undo()
    dc1.dc.store.close()
    dc1 = wan.site("dc1", path=tmp_path / "dc1")
    async with running(dc1, dc2):
        assert dc1.trust.active.id == before
        _assert_legal(dc1, "rotating")
        await dc1.put(ROTATE)
        await trio.sleep(1)
        await assert_mutual_trust(dc1, dc2)
    dc1.dc.store.close()
