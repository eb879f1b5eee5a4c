"""The summary of `/status`: problems before facts, and colours that change no word."""

from __future__ import annotations

import re

import pytest

from agent.overview.stations import Light
from agent.overview.summary import coloured, summary, upstream_lines


def test_the_page_shows_what_is_rejected() -> None:
    page = summary(
        {
            "phase": "serving",
            "ready": True,
            "missing": [],
            "credentials": {"rejected": {"reason": "expired", "detail": "long ago"}},
            "public": None,
            "watches": [],
            "counters": {"endings": {"inbound": {"clean": 2, "probe": 1}, "outbound": {}}},
            "upstreams": [],
            "complaints": ["AUDIT MODE: intentions are not enforced"],
        }
    )
    assert page.splitlines() == [
        "serving, ready",
        "attention   AUDIT MODE: intentions are not enforced",
        "rejected    expired: long ago",
        "inbound     clean 2, probe 1",
        "outbound    nothing yet",
    ]


@pytest.mark.parametrize(("skew", "told"), [(7.5, "7.5 s ahead of ours"), (-60.2, "60.2 s behind ours")])
def test_the_page_shows_a_clock_that_is_off(skew: float, told: str) -> None:
    credentials = {"clock_skew_seconds": skew, "clock_skew_notable": True}
    page = {"phase": "starting", "ready": True, "missing": [], "public": None, "watches": [], "upstreams": []}
    counters = {"counters": {"endings": {}}, "complaints": []}
    lines = summary(page | counters | {"credentials": credentials}).splitlines()
    assert f"clock       Consul's is {told}" in lines


def test_the_page_shows_warm_connections_where_there_are_any() -> None:
    warm = {"wanted": 4, "ready": [{}, {}], "used": 9, "missed": 1, "discarded": {"refused_by_peer": 2}}
    upstream: dict[str, object] = {
        "destination": "db",
        "bind": "127.0.0.1:1",
        "listener": None,
        "targets": [],
    }
    head = "upstream    db on 127.0.0.1:1"
    assert upstream_lines({**upstream, "warm": warm}) == [
        head,
        "              warm: 2 of 4 ready, 9 used, 1 missed, 2 refused_by_peer",
    ]
    assert upstream_lines({**upstream, "warm": {**warm, "wanted": 0}}) == [head]
    assert upstream_lines(upstream) == [head]


# --- without an address: the instances of this machine ---


def test_colours_change_no_word_and_mark_what_is_wrong() -> None:
    page = {
        "headline": "serving · 1 of 1 upstreams has no instance (db)",
        "health": "degraded",
        "ready": True,
        "credentials": None,
        "public": {"addresses": ["127.0.0.1:21000"], "live": 2},
        "watches": [{"name": "leaf", "failing": {"since": "12:00", "detail": "away"}}],
        "counters": {"endings": {}},
        "upstreams": [
            {
                "destination": "db",
                "bind": "127.0.0.1:1",
                "listener": None,
                "targets": [{"target": "db", "source": "index", "endpoints": []}],
            }
        ],
        "complaints": ["AUDIT MODE"],
    }
    text = coloured(page, lambda text, light: f"<{light.name}:{text}>")
    assert text.startswith(
        "<AMBER:serving · 1 of 1 upstreams has no instance (db)>\nattention   <AMBER:AUDIT MODE>"
    )
    assert "<RED:  no instance>" in text
    assert f"<{Light.DARK.name}:public      >127.0.0.1:21000, 2 live" in text
    assert re.sub(r"<[A-Z]+:([^>]*)>", r"\1", text) == summary(page)


def test_watches_that_fail_alike_share_a_line_and_the_headline_is_not_said_twice() -> None:
    def watch(name: str, second: int, detail: str) -> dict[str, object]:
        return {"name": name, "failing": {"since": f"12:00:0{second}", "detail": detail}}

    away = "unreachable: Connection refused"
    watches = [
        watch(name, 9 - place, f"/v1/{name}: {away}") for place, name in enumerate(("a", "b", "c", "d"))
    ]
    page: dict[str, object] = {
        "credentials": None,
        "public": None,
        "upstreams": [],
        "counters": {"endings": {}},
        "ready": True,
    }
    page |= {"headline": "serving · Consul silent 3 s · calls fail", "complaints": ["calls fail", "audit"]}
    watches += [watch("e", 1, "/v1/e: 403: no"), {"name": "f", "failing": None}]
    assert summary({**page, "watches": watches}).splitlines() == [
        "serving · Consul silent 3 s · calls fail",
        "attention   audit",
        f"failing     a, b, c and 1 more since 12:00:06: {away}",
        "failing     e since 12:00:01: /v1/e: 403: no",
    ]
