"""One request, one connection; a missing answer is one named failure."""

from __future__ import annotations

import json

import pytest
import trio

from datacenter.demo.http import Answer, Unanswered, call, get


async def _exchange(answer: bytes, method: str = "GET", body: object = None) -> tuple[Answer, bytes]:
    """Answer one request with `answer`, whatever it is; the parsed answer and the request as it came."""
    requests: list[bytes] = []
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def serve() -> None:
        stream = await listener.accept()
        async with stream, listener:
            requests.append(await _request(stream, len(json.dumps(body)) if body else 0))
            if answer:
                await stream.send_all(answer)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        came = await call(method, f"http://127.0.0.1:{listener.socket.getsockname()[1]}/x", body)
    return came, requests[0]


async def _request(stream: trio.SocketStream, body_length: int) -> bytes:
    """Head and body, in however many pieces they come."""
    request = b""
    while len(request.partition(b"\r\n\r\n")[2]) < body_length or b"\r\n\r\n" not in request:
        request += await stream.receive_some(65536)
    return request


async def test_a_json_body_goes_out_and_the_answer_comes_back() -> None:
    sent = b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"a": 1}\n'
    answer, request = await _exchange(sent, "PUT", {"b": 2})
    assert (answer.status, answer.text, answer.json()) == (200, '{"a": 1}', {"a": 1})
    assert request.startswith(b"PUT /x HTTP/1.1\r\n")
    assert b"Connection: close" in request
    assert request.endswith(b'{"b": 2}')


async def test_a_closed_connection_is_no_answer() -> None:
    with pytest.RaisesGroup(Unanswered):
        await _exchange(b"")


async def test_nobody_listening_is_no_answer() -> None:
    with pytest.raises(Unanswered, match="GET http://127"):
        await get("http://127.0.0.1:1/")
