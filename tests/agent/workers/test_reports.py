"""Many voices, one agent: sums where there are parts, no number that goes back, rows with their worker."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agent.base.prometheus import Family, Kind
from agent.connections.records import Direction
from agent.relay.splice import Ending
from agent.workers.reports import (
    LIVE,
    AskedAgain,
    GatewaysWanted,
    NotAWorkerMessage,
    Reported,
    added_up,
    merged,
    read,
    reported,
    retired,
)
from agent.workers.rows import Rows
from tests.support.agent_parts import AgentBench, agent_bench


def report_of(*metrics: Family, **told: Any) -> Reported:
    told = {"number": 1, "pid": 7, "live": 0, "resident_bytes": 1, "counters": {}, **told}
    return Reported(metrics=list(metrics), **told)


def counted(value: float, **labels: str) -> Family:
    return Family("x_total", Kind.COUNTER, "X.", [(labels, value)])


def gauged(name: str, value: float, **labels: str) -> Family:
    return Family(name, Kind.GAUGE, "G.", [(labels, value)])


def values(families: list[Family]) -> dict[str, list[tuple[dict[str, str], float]]]:
    return {family.name: [(dict(of), value) for of, value in family.samples] for family in families}


@pytest.fixture
async def agent(nursery: Any) -> AgentBench:
    return agent_bench(nursery)


async def test_a_report_crosses_as_json(agent: AgentBench) -> None:
    ledger = agent.data.ledger
    with ledger.open(Direction.INBOUND, "1.2.3.4:5") as connection:
        connection.relaying()
        told = reported(agent.data.reporting(rows=True).run_now(), 3, lines_lost=2)
    with_rows = read(msgspec.json.encode(told))
    assert with_rows == told
    assert isinstance(with_rows, Reported)
    assert (with_rows.number, with_rows.live, len(with_rows.connections)) == (3, 1, 1)
    assert with_rows.counters["log_lines_lost"] == 2
    assert agent.data.reporting(rows=False).run_now().connections == []


@pytest.mark.parametrize("word", [AskedAgain(3), GatewaysWanted(None), GatewaysWanted("dc2")])
def test_what_a_worker_wants_crosses_too(word: AskedAgain | GatewaysWanted) -> None:
    assert read(msgspec.json.encode(word)) == word


DEEP = b"[" * 2000 + b"]" * 2000
REPORT = b'{"type":"Reported","number":1,"pid":1,"live":0,"resident_bytes":0,"metrics":[],"counters":%b}'


@pytest.mark.parametrize(
    "frame",
    [
        *(b"", b"{}", b'{"type":"Finish"}', b'{"type":"AskedAgain","number":"x"}'),
        *(b'{"type":"GatewaysWanted","datacenter":"\xff"}', b'{"type":"AskedAgain","x":' + DEEP + b"}"),
        *(REPORT % b'{"probes":null}', REPORT % b'{"endings":[]}', REPORT % b'{"a":{"b":{"c":{"d":1}}}}'),
    ],
    ids=lambda frame: str(frame[:40]),
)
def test_what_is_no_word_is_refused(frame: bytes) -> None:
    with pytest.raises(NotAWorkerMessage):
        read(frame)


SPOILT: list[dict[str, Any]] = [
    {"connections": [{}]},
    {"connections": [{"since": 1}]},
    {"recent": [{"until": []}]},
    {"public": {}},
    {"public": {"live": "many"}},
    {"upstreams": [{}]},
    {"upstreams": [{"bind": "127.0.0.1:1"}]},
]


@pytest.mark.parametrize("rows", SPOILT, ids=str)
def test_a_report_whose_rows_cannot_be_added_up_is_refused(rows: dict[str, Any]) -> None:
    """As a worker that has been taken over might say: `/status` of all would have failed by them."""
    with pytest.raises(NotAWorkerMessage):
        read(msgspec.json.encode(report_of(**rows)))


@pytest.mark.parametrize("field", sorted(Rows.__struct_fields__))
def test_each_kind_of_row_is_checked(field: str) -> None:
    good = {"public": row(), "upstreams": [upstream(1, None, warm=WARM)], "connections": [], "recent": []}
    assert isinstance(read(msgspec.json.encode(report_of(**good))), Reported)
    with pytest.raises(NotAWorkerMessage):
        read(msgspec.json.encode(report_of(**{**good, field: [7] if field != "public" else 7})))


def test_counters_of_two_kinds_and_metrics_without_labels_are_counted_as_they_are() -> None:
    """As a worker that has been taken over might say."""
    strange = report_of(gauged(LIVE, 2), counters={"probes": {"x": 1}})
    honest = report_of(counters={"probes": 3})
    assert retired(retired(None, honest), strange).counters["probes"] == {"x": 1}
    assert retired(retired(None, strange), honest).counters["probes"] == 3
    assert retired(None, strange).counters["endings"] == {"": {"worker_died": 2}}


def test_numbers_are_added_up_by_their_labels() -> None:
    one = report_of(counted(2, reason="a"), gauged("live", 3, direction="in"))
    two = report_of(counted(5, reason="a"), gauged("live", 4, direction="in"))
    other = report_of(counted(1, reason="b"))
    assert values(added_up([one, two, other], None)) == {
        "x_total": [({"reason": "a"}, 7), ({"reason": "b"}, 1)],
        "live": [({"direction": "in"}, 7)],
    }


def test_one_thing_that_all_see_is_not_added_up() -> None:
    seen = [
        report_of(gauged("sidecar_upstream_endpoints", 3)),
        report_of(gauged("sidecar_upstream_endpoints", 3)),
    ]
    assert values(added_up(seen, None)) == {"sidecar_upstream_endpoints": [({}, 3)]}


def test_the_dead_count_on_and_what_they_had_has_ended() -> None:
    last = report_of(
        counted(2),
        gauged("sidecar_connections_live", 3, direction="inbound"),
        live=3,
        counters={"probes": 1, "endings": {"inbound": {"clean": 2}, "outbound": {}}},
    )
    ended = retired(retired(None, last), last)
    found = values(added_up([report_of(counted(1))], ended))
    assert found["x_total"] == [({}, 5)]
    assert found["sidecar_connections_total"] == [({"direction": "inbound", "reason": "worker_died"}, 6)]
    assert "sidecar_connections_live" not in found
    assert ended.counters == {
        "probes": 2,
        "endings": {"inbound": {"clean": 4, "worker_died": 6}, "outbound": {}},
    }


def row(**told: Any) -> dict[str, Any]:
    """A listener's."""
    empty = dict.fromkeys(("live", "most", "admitted", "handshakes", "handshakes_most", "overflow"), 0)
    line = {"waiting": 0, "left": 0, "displaced": {"silent": 0}}
    limits = {"limit": None, "handshakes_limit": 4, "overflow_by_reason": {"max_handshakes": 0}}
    return {"addresses": [], "listening": True, "problem": "", **empty, **line, **limits, **told}


WARM = {"wanted": 1, "ready": [], "made": 0, "used": 0, "missed": 0, "discarded": {}, "failed": {}}


def upstream(live: int, until: str | None, **told: Any) -> dict[str, Any]:
    endpoint = {"instance": "a", "live": live, "ejected_until": until, "address": "x:1"}
    targets = [{"watch": "endpoints db", "answered_seconds_ago": 1.0, "endpoints": [endpoint]}]
    bare = {"bind": "127.0.0.1:1", "listener": row(), "connections": live, "waiting": 0, "targets": targets}
    return {
        **bare,
        "active": "db",
        "active_since": None,
        "gateways": [],
        "warm": {"wanted": 1, "ready": [live]},
        "overflow": {"upstream_overflow": live},
        **told,
    }


def test_status_is_one_document() -> None:
    counters = {"probes": 1, "endings": {"inbound": {Ending.CLEAN.value: 2}}}
    own = report_of(
        public=row(addresses=["127.0.0.1:2"]),
        upstreams=[upstream(0, None), upstream(0, None, bind="of none of them")],
        counters={"probes": 0},
    )
    zero = report_of(
        counters=counters,
        public=row(live=2, limit=5, overflow_by_reason={"max_handshakes": 1}, overflow=1, waiting=3),
        upstreams=[upstream(1, None)],
        connections=[{"id": 1, "since": "2031-01-01T00:00:02Z"}],
        recent=[{"id": 2, "until": "2031-01-01T00:00:09Z"}],
    )
    one = report_of(
        counters=counters,
        public=row(live=3, limit=5, overflow_by_reason={"max_handshakes": 2}, overflow=2),
        upstreams=[upstream(4, "2031-01-01T00:01:00Z", active="db@dc2", active_since="2031-01-01T00:00:30Z")],
        connections=[{"id": 1, "since": "2031-01-01T00:00:01Z"}],
        connections_not_shown=3,
    )
    ended = report_of(counters={"probes": 5})
    told = merged(own, {0: zero, 1: one}, ended, processes=[], workers=[{"worker": 0}])
    public = told.public
    assert public is not None
    assert (public["addresses"], public["live"], public["limit"]) == (["127.0.0.1:2"], 5, 10)
    assert (public["overflow"], public["overflow_by_reason"]) == (3, {"max_handshakes": 3})
    assert (public["handshakes_limit"], public["waiting"], public["displaced"]) == (8, 3, {"silent": 0})
    assert [(c["worker"], c["id"]) for c in told.connections] == [(1, 1), (0, 1)]  # the oldest first
    assert told.connections_not_shown == 3
    assert told.recent == [{"worker": 0, "id": 2, "until": "2031-01-01T00:00:09Z"}]
    assert told.counters["probes"] == 7
    assert told.counters["endings"] == {"inbound": {"clean": 4}}
    first, second = told.upstreams
    assert (first["connections"], first["active"]) == (5, "db@dc2")
    (endpoint,) = first["targets"][0]["endpoints"]
    assert (endpoint["live"], endpoint["ejected_until"]) == (5, "2031-01-01T00:01:00Z")
    assert first["warm"] == {"wanted": 2, "ready": [1, 4]}
    assert first["overflow"] == {"upstream_overflow": 5}
    assert second == own.upstreams[1]
    assert told.workers == [{"worker": 0}]


def test_a_refusal_that_one_worker_has_met_is_told_of_all() -> None:
    def said(reason: str) -> dict[str, Any]:
        row = upstream(0, None)
        row["targets"][0]["endpoints"][0] |= {"travel": reason, "travel_says": f"({reason})"}
        return row

    reports = {slot: report_of(upstreams=[said(one)]) for slot, one in enumerate(("tunnel", "no_tunnels"))}
    told = merged(report_of(upstreams=[said("tunnel")]), reports, None, processes=[], workers=[])
    (endpoint,) = told.upstreams[0]["targets"][0]["endpoints"]
    assert (endpoint["travel"], endpoint["travel_says"]) == ("no_tunnels", "(no_tunnels)")


def test_without_a_worker_that_answers_the_own_report_stays_as_it_is() -> None:
    own = report_of(counters={"probes": 0}, upstreams=[upstream(0, None)], public=row())
    told = merged(own, {}, None, processes=[], workers=[])
    assert (told.public, told.upstreams, told.counters) == (own.public, own.upstreams, own.counters)
