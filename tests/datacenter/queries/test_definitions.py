"""Prepared queries as stored: validation, lookup, templates."""

from __future__ import annotations

from typing import Any

import pytest

from datacenter.queries.definitions import InvalidQuery, is_uuid, normal_query, resolve


def query(name: str = "q", identifier: str = "id", **more: Any) -> dict[str, Any]:
    return normal_query({"Name": name, "Service": {"Service": "db"}, **more}, identifier)


def template(name: str, service: dict[str, Any], **more: Any) -> dict[str, Any]:
    return query(name, f"id {name}", Template={"Type": "name_prefix_match", **more}, Service=service)


REFUSED: dict[str, dict[str, Any]] = {
    "Invalid prepared query: Must provide a Service name to query": {"Service": {}},
    "Invalid prepared query: Bad NearestN '-1', must be >= 0": {
        "Service": {"Service": "db", "Failover": {"NearestN": -1}}
    },
    "Invalid prepared query: Bad DNS TTL 'x': ": {"DNS": {"TTL": "x"}},
    "Invalid prepared query: DNS TTL '-1000000000', must be >=0": {"DNS": {"TTL": "-1s"}},
    "raft apply failed: failed compiling template: Bad Template.Type 'x'": {"Template": {"Type": "x"}},
    "raft apply failed: failed compiling template: Bad Regexp: error parsing regexp: ": {
        "Template": {"Type": "name_prefix_match", "Regexp": "("}
    },
    "raft apply failed: invalid session: index error: UUID must be 36 characters": {"Session": "x"},
    'raft apply failed: invalid session "00000000-0000-0000-0000-000000000000"': {
        "Session": "00000000-0000-0000-0000-000000000000"
    },
    "Invalid prepared query: Must be bound to a session": {"Name": ""},
}


@pytest.mark.parametrize(("text", "change"), REFUSED.items())
def test_refused(text: str, change: dict[str, Any]) -> None:
    with pytest.raises(InvalidQuery) as caught:
        query(**change)
    assert str(caught.value).startswith(text)


def test_lookup_is_by_id_then_name_then_longest_template() -> None:
    known = [
        query("one", "1"),
        query("1", "2"),
        template("", {"Service": "any"}),
        template("geo-", {"Service": "geo"}),
        template("geo-db-", {"Service": "geo-db"}),
    ]

    def found(name: str) -> str:
        resolved = resolve(known, name)
        assert resolved is not None
        return str(resolved["ID"])

    assert [found(name) for name in ("1", "one", "geo-x", "geo-db-x", "other")] == [
        "1",
        "1",
        "id geo-",
        "id geo-db-",
        "id ",
    ]


def test_names_and_prefixes_are_found_in_any_case() -> None:
    assert resolve([query("My-Query", "1")], "my-query") is not None
    assert resolve([template("Geo-", {"Service": "${name.suffix}"})], "geo-DB") is not None


def test_a_name_nobody_has() -> None:
    assert resolve([query("one", "1")], "two") is None


def test_a_template_is_filled_in() -> None:
    service = {
        "Service": "${match(1)}-${match(2)}",
        "Near": "${name.suffix}",
        "Failover": {"Datacenters": ["${match(1)}", "dc2"]},
        "Tags": ["${name.full}", "${name.prefix}", "${match(9)}", "${agent.segment}", "${odd}"],
        "NodeMeta": {"k": "${match(0)}"},
    }
    filled = resolve([template("geo-", service, Regexp="^geo-(.*?)-([^-]*)$")], "geo-a-b")
    assert filled is not None
    assert filled["Service"]["Service"] == "a-b"
    assert filled["Service"]["Near"] == "a-b"
    assert filled["Service"]["Failover"]["Datacenters"] == ["a", "dc2"]
    assert filled["Service"]["Tags"] == ["geo-a-b", "geo-", "", "", "${odd}"]
    assert filled["Service"]["NodeMeta"] == {"k": "geo-a-b"}


def test_a_template_whose_pattern_does_not_match_has_empty_matches() -> None:
    filled = resolve([template("geo-", {"Service": "x${match(1)}"}, Regexp="^geo-([0-9]+)$")], "geo-a")
    assert filled is not None
    assert filled["Service"]["Service"] == "x"


def test_empty_tags_can_be_left_out() -> None:
    service = {"Service": "db", "Tags": ["${match(1)}", "a"]}
    filled = resolve([template("g", service, Regexp="^g(x?)$", RemoveEmptyTags=True)], "g")
    assert filled is not None
    assert filled["Service"]["Tags"] == ["a"]


def test_the_template_itself_stays_as_it_is() -> None:
    known = [template("geo-", {"Service": "${name.suffix}"})]
    resolve(known, "geo-a")
    assert known[0]["Service"]["Service"] == "${name.suffix}"


@pytest.mark.parametrize(
    ("text", "answer"),
    [("11111111-2222-3333-4444-555555555555", True), ("db-geo", False), ("1" * 36, False), ("", False)],
)
def test_what_looks_like_an_id(text: str, answer: bool) -> None:
    assert is_uuid(text) is answer
