"""Reading, checking and writing config entries."""

from __future__ import annotations

import json
from typing import Any

import pytest

from datacenter.intentions.config_entries import (
    delete_entry,
    read_entry,
    refile,
    require_kind,
    write_entry,
)
from datacenter.services.central_defaults import CONFIG_ENTRIES
from datacenter.state.errors import ApiError
from datacenter.state.store import Store


def read(**entry: Any) -> dict[str, Any]:
    return read_entry(json.dumps(entry).encode())


@pytest.fixture
def store() -> Store:
    return Store()


PERMISSION = {"Action": "allow", "HTTP": {"PathPrefix": "/"}}
L7 = {
    "Kind": "service-intentions",
    "Name": "db",
    "Sources": [{"Name": "web", "Permissions": [PERMISSION]}],
}
TCP = 'service "db" has protocol "tcp", which is incompatible with L7 intentions permissions'


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "Bad request: Request decoding failed: EOF"),
        (b"{", "Bad request: Request decoding failed: unexpected EOF"),
        (b"[]", "Bad request: Request decoding failed: '' expected a map, got 'slice'"),
        (b"5", "Bad request: Request decoding failed: '' expected a map, got 'float64'"),
        (b"null", "Bad request: Request decoding failed: Payload does not contain a kind/Kind key"),
        (b'{"Kind":5}', "Bad request: Request decoding failed: Kind value in payload is not a string"),
        (b"{}", "Bad request: Request decoding failed: Payload does not contain a kind/Kind key"),
        (b'{"Kind":"nope"}', "Bad request: Request decoding failed: invalid config entry kind: nope"),
        (
            b'{"Kind":"service-defaults","X":1}',
            'Bad request: Request decoding failed: 1 error occurred:\n\t* invalid config key "X"\n\n',
        ),
    ],
)
def test_a_body_that_is_no_entry_is_400(body: bytes, text: str) -> None:
    with pytest.raises(ApiError) as caught:
        read_entry(body)
    assert caught.value.status == 400
    assert caught.value.text.startswith(text)


def test_a_kind_that_is_not_served_is_500() -> None:
    require_kind("proxy-defaults")
    with pytest.raises(ApiError) as caught:
        require_kind("service-router")
    assert (caught.value.status, caught.value.text) == (500, "invalid config entry kind: service-router")


def test_service_defaults_are_shown_with_three_parts_and_a_lower_case_protocol() -> None:
    assert read(kind="service-defaults", name="web", protocol="HTTP2", external_sni="a.b") == {
        "Kind": "service-defaults",
        "Name": "web",
        "Protocol": "http2",
        "TransparentProxy": {},
        "MeshGateway": {},
        "Expose": {},
        "ExternalSNI": "a.b",
    }


def test_service_defaults_show_their_protocol_when_they_have_none() -> None:
    shown = read(Kind="service-defaults", Name="web", MeshGateway={"Mode": "far"})
    assert (shown["Protocol"], shown["MeshGateway"]) == ("", {"Mode": "far"})  # the mode is nobody's concern


def test_proxy_defaults_are_always_global() -> None:
    assert read(Kind="proxy-defaults", Name="x", Config={"protocol": "http"}) == {
        "Kind": "proxy-defaults",
        "Name": "global",
        "Config": {"protocol": "http"},
        "TransparentProxy": {},
        "MeshGateway": {},
        "Expose": {},
    }


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"Kind": "service-defaults"}, "Name is required"),
        (
            {"Kind": "service-defaults", "Name": "*"},
            "service-defaults name must be the name of a service, and not a wildcard",
        ),
        (L7, TCP),
    ],
)
def test_an_entry_that_cannot_be_is_500_and_not_written(
    store: Store, entry: dict[str, Any], text: str
) -> None:
    with pytest.raises(ApiError) as caught:
        write_entry(store, read(**entry))
    assert (caught.value.status, caught.value.text) == (500, text)
    assert store.table(CONFIG_ENTRIES).rows() == []


@pytest.mark.parametrize(
    "speaks",
    [
        {"Kind": "service-defaults", "Name": "db", "Protocol": "grpc"},
        {"Kind": "proxy-defaults", "Name": "global", "Config": {"protocol": "HTTP"}},
    ],
)
def test_http_permissions_need_a_destination_that_speaks_http(store: Store, speaks: dict[str, Any]) -> None:
    write_entry(store, read(**speaks))
    write_entry(store, read(**L7))
    with pytest.raises(ApiError) as caught:
        delete_entry(store, speaks["Kind"], speaks["Name"])
    assert caught.value.text == TCP
    with pytest.raises(ApiError) as caught:
        write_entry(store, read(Kind="service-defaults", Name="db", Protocol="tcp"))
    assert caught.value.text == TCP
    delete_entry(store, "service-intentions", "db")
    delete_entry(store, speaks["Kind"], speaks["Name"])
    assert store.table(CONFIG_ENTRIES).rows() == []


def test_what_is_not_there_can_be_deleted(store: Store) -> None:
    delete_entry(store, "service-defaults", "db")
    assert store.index == 1


def test_a_name_in_another_case_is_the_same_entry_under_the_name_it_got_last(store: Store) -> None:
    for name in ("Service_A", "service_a"):
        write_entry(store, read(Kind="service-defaults", Name=name, Protocol="http"))
    (row,) = store.table(CONFIG_ENTRIES).rows()
    assert row.value["Name"] == "service_a"
    delete_entry(store, "service-defaults", "SERVICE_A")
    assert store.table(CONFIG_ENTRIES).rows() == []


def test_what_is_filed_in_its_own_case_is_filed_anew_and_no_denial_is_lost(store: Store) -> None:
    def rules(name: str, **actions: str) -> dict[str, Any]:
        sources = [{"Name": source, "Action": action} for source, action in actions.items()]
        return read(Kind="service-intentions", Name=name, Sources=sources)

    table = store.table(CONFIG_ENTRIES)
    table.put("service-intentions/DB", rules("DB", web="deny", api="allow"))
    table.put("service-intentions/db", rules("db", web="allow", ci="deny"))
    table.put("service-defaults/Web", read(Kind="service-defaults", Name="Web", Protocol="http"))
    refile(store)
    assert [row.key for row in table.rows()] == ["service-defaults/web", "service-intentions/db"]
    found = {source["Name"]: source["Action"] for source in table.rows()[1].value["Sources"]}
    assert found == {"web": "deny", "api": "allow", "ci": "deny"}
    index = table.index
    refile(store)
    assert table.index == index
