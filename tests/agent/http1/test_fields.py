"""What goes on to the app and back, and what ends at the sidecar."""

from __future__ import annotations

from itertools import product

import h11
import pytest

from agent.http1.fields import (
    identity_value,
    request_fields,
    response_fields,
    trailer_fields,
    view,
)
from agent.http1.head import FieldNames, Fields, HeadReason, HeadRefused, RequestHead, read_head
from agent.http1.target import Target
from certs.spiffe import ServiceId, TrustDomain

IDENTITY = ("X-Forwarded-Client-Cert", "By=a;URI=b")


def service(name: str) -> ServiceId:
    return ServiceId(trust_domain=TrustDomain("test.consul"), datacenter="dc1", service=name)


def parsed(*headers: str, line: str = "GET / HTTP/1.1") -> RequestHead:
    return read_head("\r\n".join((line, *headers, "", "")).encode("latin-1"), FieldNames.UNDERSCORES)


def sent(*headers: str, line: str = "GET / HTTP/1.1") -> list[tuple[str, str]]:
    fields = request_fields(parsed(*headers, line=line), b"fallback", b"By=a;URI=b")
    return [(name.decode(), value.decode("latin-1")) for name, value in fields]


def test_ordinary_headers_go_on_as_they_are() -> None:
    assert sent("Host: db", "X-a: 1", "x-A: 2", "Cookie: c", "Content-Length: 3") == [
        ("Host", "db"),
        ("X-a", "1"),
        ("x-A", "2"),
        ("Cookie", "c"),
        ("Content-Length", "3"),
        IDENTITY,
    ]


@pytest.mark.parametrize(
    "header",
    [
        "Connection: close",
        "Keep-Alive: 5",
        "Proxy-Connection: x",
        "Proxy-Authorization: x",
        "TE: trailers",
        "Upgrade: h2c",
        "X-Forwarded-Client-Cert: URI=evil",
        "x-forwarded-client-CERT: URI=evil",
        "X_Forwarded_Client_Cert: URI=evil",
        "X-Forwarded_Client-Cert: URI=evil",
    ],
)
def test_what_is_for_this_hop_or_forged_ends_here(header: str) -> None:
    assert sent("Host: db", header) == [("Host", "db"), IDENTITY]


def test_what_a_connection_header_names_ends_here_too() -> None:
    assert sent("Host: db", "Connection: close, X-Hop", "x-hop: 1", "X-Kept: 1") == [
        ("Host", "db"),
        ("X-Kept", "1"),
        IDENTITY,
    ]


@pytest.mark.parametrize(("header", "named"), list(product(("X-Hop", "x_hop", "X_HOP"), repeat=2)))
def test_a_connection_header_names_every_spelling(header: str, named: str) -> None:
    assert sent("Host: db", f"Connection: {named}", f"{header}: 1") == [("Host", "db"), IDENTITY]


@pytest.mark.parametrize(
    "name",
    [
        *("Host", "content-length", "Authorization", "cookie", "X-Forwarded-For", "x-forwarded-client-cert"),
        *("content_length", "X_Forwarded_For", "x-forwarded_client-cert"),
    ],
)
def test_some_headers_are_not_to_be_named(name: str) -> None:
    with pytest.raises(HeadRefused) as refused:
        sent("Host: db", f"Connection: keep-alive, {name}")
    assert refused.value.reason is HeadReason.NOMINATED


def test_a_long_list_of_names_is_not_read() -> None:
    with pytest.raises(HeadRefused) as refused:
        sent("Host: db", "Connection: " + "a," * 512, "Connection: b")
    assert (refused.value.reason, refused.value.status) == (HeadReason.TOO_LARGE, 431)


@pytest.mark.parametrize(("length", "written"), [("0", "0"), ("007", "7"), (" 42\t", "42"), ("0" * 18, "0")])
def test_a_length_is_written_anew(length: str, written: str) -> None:
    assert sent("Host: db", f"Content-Length:{length}") == [
        ("Host", "db"),
        ("Content-Length", written),
        IDENTITY,
    ]


@pytest.mark.parametrize(
    "name",
    ["Content_Length", "transfer_encoding", "SCRIPT_NAME", "Path_Info", "request_uri"],
)
def test_a_name_in_disguise_is_refused(name: str) -> None:
    with pytest.raises(HeadRefused) as refused:
        sent("Host: db", f"{name}: 1")
    assert refused.value.reason is HeadReason.DISGUISED


def test_an_expectation_is_100_continue_or_refused() -> None:
    assert ("Expect", "100-Continue") in sent("Host: db", "Expect: 100-Continue")
    with pytest.raises(HeadRefused) as refused:
        sent("Host: db", "Expect: 200-ok")
    assert (refused.value.reason, refused.value.status) == (HeadReason.EXPECTATION, 417)


def test_http_1_0_may_lack_a_host() -> None:
    assert sent(line="GET / HTTP/1.0") == [("Host", "fallback"), IDENTITY]


def test_a_websocket_may_be_asked_for() -> None:
    assert sent("Host: db", "Connection: keep-alive, Upgrade", "Upgrade: WebSocket") == [
        ("Host", "db"),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        IDENTITY,
    ]


@pytest.mark.parametrize(
    ("line", "headers"),
    [
        ("GET / HTTP/1.1", ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AA"]),
        ("GET / HTTP/1.1", ["Connection: Upgrade", "Upgrade: websocket, h2c"]),
        ("GET / HTTP/1.1", ["Connection: Upgrade", "Upgrade: websocket", "Upgrade: h2c"]),
        ("GET / HTTP/1.1", ["Upgrade: websocket"]),
        ("POST / HTTP/1.1", ["Connection: Upgrade", "Upgrade: websocket"]),
        ("GET / HTTP/1.0", ["Connection: Upgrade", "Upgrade: websocket"]),
        ("GET / HTTP/1.1", ["Connection: Upgrade", "Upgrade: websocket", "Content-Length: 2"]),
    ],
)
def test_nothing_else_may(line: str, headers: list[str]) -> None:
    names = {name.lower() for name, _ in sent("Host: db", *headers, line=line)}
    assert not names & {"upgrade", "connection", "http2-settings"}


def test_rules_see_folded_names_and_every_value() -> None:
    fields: Fields = [(b"X_Role", b"a"), (b"x-role", b"b"), (b"X-Raw", b"\xff"), (b"X-Utf", "é".encode())]
    asked = view("GET", Target(sent=b"/a?b", readings=("/a",)), fields)
    assert (asked.method, asked.paths) == ("GET", ("/a",))
    assert asked.headers == {"x-role": ("a", "b"), "x-raw": (None,), "x-utf": ("é",)}


def test_framing_of_an_answer_is_written_anew() -> None:
    answer = h11.Response(status_code=200, headers=[("Content-Length", "007")])
    assert response_fields(answer) == [(b"Content-Length", b"7")]


def test_an_answer_loses_its_hop_by_hop_headers() -> None:
    answer = h11.Response(
        status_code=200, headers=[("Connection", "X-Hop"), ("X-Hop", "1"), ("Keep-Alive", "5"), ("X", "y")]
    )
    assert response_fields(answer) == [(b"X", b"y")]


def test_trailers_cannot_become_headers_that_matter() -> None:
    end: Fields = [
        (b"X-Sum", b"1"),
        (b"Content-Length", b"5"),
        (b"X_Forwarded_Client_Cert", b"URI=evil"),
        (b"authorization", b"x"),
        (b"X_Role", b"admin"),
        (b"SCRIPT_NAME", b"/x"),
        (b"X-Original-Url", b"/x"),
        (b"Keep_Alive", b"5"),
    ]
    assert trailer_fields(end, judged={"x-role"}) == [(b"X-Sum", b"1")]


def test_the_identity_names_who_vouches_and_who_calls() -> None:
    assert identity_value(service("db"), service("web")) == (
        b"By=spiffe://test.consul/ns/default/dc/dc1/svc/db;URI=spiffe://test.consul/ns/default/dc/dc1/svc/web"
    )


def test_an_identity_cannot_forge_another_field() -> None:
    value = identity_value(service("db"), service("x;URI=spiffe:"))
    assert value.count(b'"') == 2
    assert value.endswith(b'"')
