"""Intentions: written anywhere, kept in the primary, matched and judged in both datacenters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.client import Api
from tests.contract.federation import Federation
from tests.contract.versions import reasons

EXACT = "/v1/connect/intentions/exact"
MATCH = "/v1/connect/intentions/match?by=destination"
AUTHORIZE = "/v1/agent/connect/authorize"
DOMAIN = "11111111-2222-3333-4444-555555555555.consul"
LAYERED = {"Permissions": [{"Action": "allow", "HTTP": {"PathPrefix": "/x", "Methods": ["get"]}}]}


@pytest.fixture
def wildcards(federation: Federation) -> Iterator[None]:
    """Rules for every destination are gone from both datacenters afterwards: they judge all callers."""
    yield
    federation.dc1.delete("/v1/config/service-intentions/*")
    federation.dc2.until(
        "/v1/config/service-intentions", lambda entries: "*" not in {entry["Name"] for entry in entries}
    )


def put(api: Api, source: str, destination: str, action: str = "allow") -> None:
    """Write one intention."""
    answer = api.put(f"{EXACT}?source={source}&destination={destination}", {"Action": action})
    assert (answer.status, answer.text) == (200, "true")


def settle(federation: Federation, name: str) -> None:
    """Wait until the secondary has all that was written in the primary so far, by other tests too.

    A round of replication deletes first and then writes, so what came before a rule of our own is there once
    that rule has come and gone.
    """
    put(federation.dc1, "settled", name)
    federation.dc2.until(f"{MATCH}&name={name}", lambda found: found[name])
    assert federation.dc1.delete(f"{EXACT}?source=settled&destination={name}").text == "true"
    federation.dc2.until(f"{MATCH}&name={name}", lambda found: found[name] is None)


def judge(api: Api, source: str, target: str, *, domain: str = DOMAIN, dc: str = "dc1") -> Any:
    """What the agent says about a caller."""
    uri = f"spiffe://{domain}/ns/default/dc/{dc}/svc/{source}"
    return api.post(AUTHORIZE, {"Target": target, "ClientCertURI": uri, "ClientCertSerial": "01"}).json


def test_an_intention_is_written_read_and_deleted_by_its_two_names(dc1: Api, name: str) -> None:
    path = f"{EXACT}?source=web&destination={name}"
    written = dc1.put(path, {"Action": "allow", "Description": "for the shop"})
    assert (written.status, written.text) == (200, "true")
    body = dc1.get(path).json
    assert body.pop("CreateIndex") == body.pop("ModifyIndex")
    assert body == {
        "Description": "for the shop",
        "SourceNS": "default",
        "SourceName": "web",
        "DestinationNS": "default",
        "DestinationName": name,
        "SourceType": "consul",
        "Action": "allow",
        "Precedence": 9,
    }
    put(dc1, "web", name, "deny")
    assert dc1.get(path).json["Action"] == "deny"
    for _ in range(2):
        assert dc1.delete(path).text == "true"
    assert dc1.get(path).status == 404


@pytest.mark.usefixtures("wildcards")
def test_match_lists_the_rules_in_the_order_they_decide(federation: Federation, name: str) -> None:
    pairs = [("*", "*"), ("web", "*"), ("*", name), ("web", name), ("api", name)]
    for source, destination in pairs:
        put(federation.dc1, source, destination)
    for api in federation:
        rules = api.until(f"{MATCH}&name={name}", lambda found: len(found[name] or []) == 5).json[name]
        assert [(rule["SourceName"], rule["DestinationName"], rule["Precedence"]) for rule in rules] == [
            ("api", name, 9),
            ("web", name, 9),
            ("*", name, 8),
            ("web", "*", 6),
            ("*", "*", 5),
        ]


def test_match_answers_for_every_name_and_null_for_none(federation: Federation, name: str) -> None:
    put(federation.dc1, "web", name)
    for api in federation:
        path = f"{MATCH}&name={name}&name={name}-nobody"
        found = api.until(path, lambda answer: answer[name]).json
        assert list(found) == [name, f"{name}-nobody"]
        assert found[f"{name}-nobody"] is None
        assert [rule["SourceName"] for rule in found[name]] == ["web"]


def test_match_by_source_lists_what_it_may_call(dc1: Api, name: str) -> None:
    put(dc1, name, "db")
    put(dc1, "other", "db")
    rules = dc1.get(f"/v1/connect/intentions/match?by=source&name={name}").json[name]
    found = {(rule["SourceName"], rule["DestinationName"]) for rule in rules}
    assert (name, "db") in found
    assert {source for source, _ in found} <= {name, "*"}


def test_a_change_wakes_the_watchers_of_both_datacenters(federation: Federation, name: str) -> None:
    path, held = f"{MATCH}&name={name}", []
    for api in federation:
        known = api.get(path)
        assert known.json == {name: None}
        held.append(api.hold(f"{path}&index={known.index}&wait=30s"))
    put(federation.dc1, "web", name, "deny")
    for api, pending in zip(federation, held, strict=True):
        assert pending.result().seconds < 5
        # The index is of all intentions together: it may have been another one that woke the watcher.
        assert api.until(path, lambda found: found[name]).json[name][0]["Action"] == "deny"


def test_unchanged_rules_are_waited_for_until_the_time_is_up(federation: Federation, name: str) -> None:
    settle(federation, name)
    known = [api.get(f"{MATCH}&name={name}").index for api in federation]
    held = [
        api.hold(f"{MATCH}&name={name}&index={index}&wait=1s")
        for api, index in zip(federation, known, strict=True)
    ]
    for pending, index in zip(held, known, strict=True):
        answer = pending.result()
        assert answer.json == {name: None}
        assert answer.index == index
        assert 0.9 <= answer.seconds < 5


def test_what_is_written_in_the_secondary_is_kept_in_the_primary(federation: Federation, name: str) -> None:
    put(federation.dc2, "web", name, "deny")
    path = f"{EXACT}?source=web&destination={name}"
    assert federation.dc1.get(path).json["Action"] == "deny"
    federation.dc2.until(f"{MATCH}&name={name}", lambda found: found[name])
    assert federation.dc2.get(path).json["Action"] == "deny"
    assert federation.dc2.delete(path).text == "true"
    assert federation.dc1.get(path).status == 404
    federation.dc2.until(f"{MATCH}&name={name}", lambda found: found[name] is None)


@pytest.mark.parametrize(("action", "allowed"), [("allow", True), ("deny", False)])
def test_check_says_what_the_rules_say(federation: Federation, name: str, action: str, allowed: bool) -> None:
    other = "deny" if allowed else "allow"
    put(federation.dc1, "web", name, action)
    put(federation.dc1, "*", name, other)
    for api in federation:
        api.until(f"{MATCH}&name={name}", lambda found: len(found[name] or []) == 2)
        for source, expected in (("web", allowed), ("elsewhere", not allowed)):
            path = f"/v1/connect/intentions/check?source={source}&destination={name}"
            assert api.get(path).json == {"Allowed": expected}


@pytest.mark.parametrize(("action", "allowed"), [("allow", True), ("deny", False)])
def test_authorize_names_the_rule_that_decided(dc1: Api, name: str, action: str, allowed: bool) -> None:
    put(dc1, "web", name, action)
    put(dc1, "*", name, "deny")
    reason = f"Matched L4 intention: default/web => default/{name} (Precedence: 9, Action: {action.upper()})"
    assert judge(dc1, "web", name) == {"Authorized": allowed, "Reason": reason}
    reason = f"Matched L4 intention: default/* => default/{name} (Precedence: 8, Action: DENY)"
    assert judge(dc1, "WEB", name) == {"Authorized": False, "Reason": reason}  # names are case-sensitive


def test_authorize_cares_neither_for_the_trust_domain_nor_for_the_datacenter(dc1: Api, name: str) -> None:
    put(dc1, "web", name, "deny")
    put(dc1, "*", name, "allow")
    for domain, dc in ((DOMAIN, "dc2"), ("foreign.consul", "dc1")):
        assert judge(dc1, "web", name, domain=domain, dc=dc)["Authorized"] is False


def test_without_a_rule_the_default_decides(federation: Federation, name: str) -> None:
    for api in federation:
        verdict = judge(api, "web", name)
        assert verdict["Authorized"] is True
        assert verdict["Reason"] in reasons(api)
        answer = api.get(f"/v1/connect/intentions/check?source=web&destination={name}")
        assert answer.json == {"Allowed": True}
        assert answer.headers["x-consul-default-acl-policy"] == "allow"


def test_layer_7_permissions_need_a_protocol_that_has_a_layer_7(federation: Federation, name: str) -> None:
    path = f"{EXACT}?source=web&destination={name}"
    refused = federation.dc1.put(path, LAYERED)
    text = f'service "{name}" has protocol "tcp", which is incompatible with L7 intentions permissions'
    assert (refused.status, refused.text) == (500, text)
    defaults = {"Kind": "service-defaults", "Name": name, "Protocol": "http"}
    assert federation.dc1.put("/v1/config", defaults).text == "true"
    assert federation.dc1.put(path, LAYERED).text == "true"
    for api in federation:
        (rule,) = api.until(f"{MATCH}&name={name}", lambda found: found[name]).json[name]
        assert "Action" not in rule
        assert rule["Permissions"] == [{"Action": "allow", "HTTP": {"PathPrefix": "/x", "Methods": ["GET"]}}]
    reason = f"Matched L7 intention: default/web => default/{name} (Precedence: 9, Permissions: 1)"
    assert judge(federation.dc1, "web", name) == {"Authorized": False, "Reason": reason}
    check = f"/v1/connect/intentions/check?source=web&destination={name}"
    assert federation.dc1.get(check).json == {"Allowed": False}
    kept = federation.dc1.delete(f"/v1/config/service-defaults/{name}")
    assert (kept.status, kept.text) == (500, text)


def test_action_and_permissions_exclude_each_other(dc1: Api, name: str) -> None:
    answer = dc1.put(f"{EXACT}?source=web&destination={name}", {"Action": "allow", **LAYERED})
    text = "Sources[0].Action must be omitted if Permissions are specified"
    assert (answer.status, answer.text) == (500, text)


def test_the_config_entry_and_the_intentions_are_one_thing(federation: Federation, name: str) -> None:
    sources = [{"Name": "*", "Action": "deny"}, {"Name": "web", "Action": "allow", "Description": "shop"}]
    entry = {"Kind": "service-intentions", "Name": name, "Sources": sources}
    assert federation.dc1.put("/v1/config", entry).text == "true"
    for api in federation:
        api.until(f"{MATCH}&name={name}", lambda found: found[name])
        body = api.get(f"/v1/config/service-intentions/{name}").json
        assert body.pop("CreateIndex") == body.pop("ModifyIndex")
        assert body == {
            "Kind": "service-intentions",
            "Name": name,
            "Sources": [
                {"Name": "web", "Action": "allow", "Precedence": 9, "Type": "consul", "Description": "shop"},
                {"Name": "*", "Action": "deny", "Precedence": 8, "Type": "consul"},
            ],
        }
    assert federation.dc1.delete(f"{EXACT}?source=web&destination={name}").text == "true"
    left = federation.dc1.get(f"/v1/config/service-intentions/{name}").json["Sources"]
    assert [source["Name"] for source in left] == ["*"]
    assert federation.dc1.delete(f"/v1/config/service-intentions/{name}").text == "{}"
    assert federation.dc1.get(f"/v1/config/service-intentions/{name}").status == 404


def test_an_intention_of_the_older_form_has_an_id(federation: Federation, name: str) -> None:
    dc1 = federation.dc1
    body = {"SourceName": "web", "DestinationName": name, "Action": "allow"}
    created = dc1.post("/v1/connect/intentions", body).json
    assert list(created) == ["ID"]
    for path in (f"/v1/connect/intentions/{created['ID']}", f"{EXACT}?source=web&destination={name}"):
        found = dc1.get(path).json
        assert (found["ID"], found["Action"], found["Precedence"]) == (created["ID"], "allow", 9)
    reason = (
        f"Matched L4 intention: default/web => default/{name} "
        f"(ID: {created['ID']}, Precedence: 9, Action: ALLOW)"
    )
    assert judge(dc1, "web", name) == {"Authorized": True, "Reason": reason}
    assert created["ID"] in {item.get("ID") for item in dc1.get("/v1/connect/intentions").json}
    again = dc1.post("/v1/connect/intentions", body)
    assert again.status == 500
    assert again.text.endswith('defines "web" more than once')
    assert dc1.delete(f"/v1/connect/intentions/{created['ID']}").status == 200
    gone = dc1.get(f"/v1/connect/intentions/{created['ID']}")
    assert (gone.status, gone.text) == (404, "Intention not found")
