"""What a header list asks for."""

from __future__ import annotations

import pytest

from agent.h2.header_blocks import Fields
from agent.h2.requests import Malformed, Request, read_request, read_status

CONNECT = [(b":method", b"CONNECT"), (b":authority", b"db:443")]
GET = [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/")]


def test_connect_and_other_methods_are_read() -> None:
    assert read_request(CONNECT) == Request(b"CONNECT", b"db:443")
    assert read_request([*CONNECT, (b"user-agent", b"x")]).method == b"CONNECT"
    assert read_request(GET) == Request(b"GET", b"")
    assert read_request([*GET, (b":authority", b"db")]) == Request(b"GET", b"db")


@pytest.mark.parametrize(
    "fields",
    [
        [],
        CONNECT[:1],
        CONNECT[1:],
        [(b":method", b"CONNECT"), (b":authority", b"")],
        [(b":method", b"CONNECT"), (b":authority", b"a b")],
        [*CONNECT, (b":path", b"/")],
        [*CONNECT, (b":scheme", b"https")],
        [*CONNECT, (b":protocol", b"websocket")],
        [*CONNECT, CONNECT[0]],
        [*CONNECT, (b"Upper", b"x")],
        [*CONNECT, (b"a", b"x\r\ny")],
        [*CONNECT, (b"a", b" x")],
        [*CONNECT, (b"", b"x")],
        [*CONNECT, (b"connection", b"close")],
        [*CONNECT, (b"te", b"gzip")],
        [(b"a", b"b"), *CONNECT],
        [(b":method", b"G T"), *GET[1:]],
        GET[:2],
        [*GET[:2], (b":path", b"")],
    ],
)
def test_a_list_that_is_no_request_is_malformed(fields: Fields) -> None:
    with pytest.raises(Malformed):
        read_request(fields)


def test_a_status_is_three_digits_and_the_only_pseudo_field() -> None:
    assert read_status([(b":status", b"503"), (b"proxy-status", b"x")]) == 503
    for wrong in ([], [(b":status", b"20")], [(b":status", b"2x0")], [(b":status", b"200"), *CONNECT]):
        with pytest.raises(Malformed):
            read_status(wrong)
