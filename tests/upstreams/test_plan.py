"""From old upstreams to new ones by bind."""

from __future__ import annotations

from dataclasses import replace

import pytest

from upstreams.plan import plan
from upstreams.spec import SocketBind, parse_upstream_flag

DB, CACHE, GEO = map(parse_upstream_flag, ("db:9191", "cache:9192", "prepared_query:geo:9193"))


def test_first_plan_opens_everything() -> None:
    first = plan([], [DB, CACHE])
    assert (first.open, first.close, first.retarget, first.keep) == ((DB, CACHE), (), (), ())


def test_same_upstreams_need_nothing() -> None:
    again = plan([DB, CACHE], [CACHE, DB])
    assert again.is_empty
    assert again.keep == (CACHE, DB)


def test_one_change_leaves_the_others_alone() -> None:
    change = plan([DB, CACHE], [DB, GEO])
    assert (change.keep, change.close, change.open) == ((DB,), (CACHE,), (GEO,))
    assert not change.is_empty


@pytest.mark.parametrize(
    "changed",
    [
        parse_upstream_flag("db@dc2:9191"),
        parse_upstream_flag("prepared_query:db:9191"),
        replace(DB, connect_timeout=1.0),
        replace(DB, max_connections=3),
    ],
)
def test_other_content_behind_the_same_bind_is_a_retarget(changed: object) -> None:
    change = plan([DB, CACHE], [changed, CACHE])  # type: ignore[list-item]
    assert change.retarget == (changed,)
    assert (change.open, change.close, change.keep) == ((), (), (CACHE,))


def test_a_moved_bind_is_closed_and_opened() -> None:
    moved = parse_upstream_flag("db:0.0.0.0:9191")
    change = plan([DB], [moved])
    assert (change.close, change.open) == ((DB,), (moved,))


def test_another_socket_mode_needs_another_socket() -> None:
    old = replace(DB, bind=SocketBind("/run/db", 0o600))
    new = replace(DB, bind=SocketBind("/run/db", 0o660))
    change = plan([old], [new])
    assert (change.close, change.open) == ((old,), (new,))


def test_two_upstreams_on_one_bind_are_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match=r"two upstreams on one bind: cache on 127\.0\.0\.1:9191"):
        plan([], [DB, replace(CACHE, bind=DB.bind)])
