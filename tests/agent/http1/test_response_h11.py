"""Answers that are not plain: framed anew for the caller, byte by byte if they come so."""

from __future__ import annotations

import pytest

from agent.http1.response_h11 import AnswerBroken, AnswerReason, H11Response

CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n"


def answer(method: bytes = b"GET", *, http10: bool = False, upgrades: bool = False) -> H11Response:
    return H11Response(method, http10=http10, upgrades=upgrades)


def bytewise(response: H11Response, raw: bytes, *, close: bool = False) -> bytes:
    return b"".join(response.take(bytes([byte]), close=close) for byte in raw)


def test_chunks_are_written_anew_with_their_trailers() -> None:
    response = answer()
    written = bytewise(response, CHUNKS)
    head, _, body = written.partition(b"\r\n\r\n")
    assert head == b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked"
    assert body in {b"2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n", b"1\r\no\r\n1\r\nk\r\n0\r\nX-Sum: 1\r\n\r\n"}
    assert (response.begun, response.ended, response.keep_alive, response.rest) == (True, True, True, b"")


@pytest.mark.parametrize("length", [b"5", b"05", b" 5\t", b"00000000000000005"])
def test_a_length_is_written_anew(length: bytes) -> None:
    response = answer()
    written = response.take(b"HTTP/1.1 200 OK\r\nContent-Length:%b\r\n\r\nhello" % length, close=False)
    assert written == b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def test_an_old_caller_gets_neither_chunks_nor_trailers_nor_interim_answers() -> None:
    response = answer(http10=True)
    written = response.take(b"HTTP/1.1 103 Early\r\n\r\n" + CHUNKS, close=True)
    assert written == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok"


def test_a_body_of_a_request_is_nothing_to_its_answer() -> None:
    response = answer(b"POST")
    assert response.take(b"HTTP/1.1 100 Continue\r\n\r\n", close=True) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert not response.begun
    assert b"Connection: close" in response.take(CHUNKS, close=True)


def test_an_answer_that_lasts_to_the_end_of_the_connection_has_an_end_of_its_own() -> None:
    response = answer()
    assert response.take(b"HTTP/1.0 200 OK\r\n\r\nok", close=False).endswith(b"2\r\nok\r\n")
    assert response.take(b"", close=False) == b"0\r\n\r\n"
    assert (response.ended, response.keep_alive) == (True, False)


def test_one_that_says_more_is_not_kept() -> None:
    response = answer()
    response.take(CHUNKS + b"HTTP", close=False)
    assert (response.ended, response.keep_alive) == (True, False)


def test_a_websocket_that_was_asked_for() -> None:
    response = answer(upgrades=True)
    raw = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert response.take(raw + b"first", close=False) == raw
    assert (response.switched, response.rest) == (True, b"first")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"hello\r\n\r\n", AnswerReason.MALFORMED),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", AnswerReason.MALFORMED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", AnswerReason.MALFORMED),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz", AnswerReason.CLOSED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhalf", AnswerReason.CLOSED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000000000\r\n\r\n", AnswerReason.MALFORMED),
        (b"HTTP/1.1 2", AnswerReason.CLOSED),
        (b"", AnswerReason.CLOSED),
    ],
    ids=repr,
)
def test_what_is_no_answer_or_not_all_of_it(raw: bytes, reason: AnswerReason) -> None:
    response = answer()
    with pytest.raises(AnswerBroken) as broken:
        _ = [response.take(data, close=False) for data in ((raw, b"") if raw else (b"",))]
    assert broken.value.reason is reason
    assert len(broken.value.detail) < 100, "no bytes of the app's are shown"
