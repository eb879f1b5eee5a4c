"""Every way in which h11 shows bytes."""

from __future__ import annotations

import h11
import pytest

from agent.base.unquoted import unquoted

HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"s3cret\r\n\r\n", "illegal status line"),
        (b'it\'s "s3cret"\r\n\r\n', "illegal status line"),
        (HEAD + b"s3cret\r\n\r\n", "illegal header line"),
        (HEAD + b"Content-Length: s3cret\r\n\r\n", "bad Content-Length"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\ns3cret\r\n", "illegal chunk header"),
        (HEAD + b"Transfer-Encoding: s3cret\r\n\r\n", "Only Transfer-Encoding: chunked is supported"),
    ],
)
def test_what_is_wrong_is_told_and_the_bytes_are_not(answer: bytes, text: str) -> None:
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    http.send(h11.EndOfMessage())
    http.receive_data(answer)
    with pytest.raises(h11.RemoteProtocolError) as caught:
        _ = [http.next_event() for _ in range(2)]
    assert unquoted(caught.value) == text
