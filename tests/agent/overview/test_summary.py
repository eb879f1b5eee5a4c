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
        "upstream": "db",
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


def test_the_page_says_how_connections_travel_and_which_tunnels_there_are() -> None:
    def ends(*said: str) -> dict[str, object]:
        rows = [
            {"instance": f"db-{place}", "address": "x:1", "why": "w", "status": "passing", "travel_says": one}
            for place, one in enumerate(said)
        ]
        target = {"target": "db", "source": "index", "endpoints": rows}
        return {"upstream": "db", "bind": "127.0.0.1:1", "listener": None, "targets": [target]}

    assert upstream_lines(ends("in a tunnel", "in a tunnel"))[-1] == "              travels in a tunnel"
    assert upstream_lines(ends("in a tunnel", "alone (no_tunnel_offer)"))[-2:] == [
        "              travels in a tunnel: db-0",
        "              travels alone (no_tunnel_offer): db-1",
    ]
    tunnel = {"direction": "inbound", "peer": "spiffe://x/web", "since": "12:00"}
    page = {"phase": "serving", "ready": True, "missing": [], "credentials": None, "public": None}
    page |= {"watches": [], "counters": {"endings": {}}, "upstreams": [], "complaints": []}
    counted = {"generation": 3, "streams": 2, "streams_opened": 7}
    lines = summary(page | {"tunnels": [tunnel | counted, tunnel]}).splitlines()
    assert lines[1] == "tunnel      from spiffe://x/web since 12:00, generation 3, 2 streams, 7 so far"
    assert "? streams" in lines[2]


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
                "upstream": "db",
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
