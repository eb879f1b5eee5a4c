"""Reads, judges and answers usual requests of one caller, without IO: bytes go in, bytes come out.

A usual request's head has come whole, it has no body or one of a known length, keeps its connection and is
allowed. Its usual answer has come whole with its head, by its length or in chunks. `None` says that something
else has come, of which nothing is taken: `HttpConnection` serves it by the same readers and the same verdict,
step by step.
"""

from __future__ import annotations

from typing import NamedTuple

from agent.http1.chunked import Chunks, ChunksBroken
from agent.http1.fields import trailer_fields
from agent.http1.head import HeadRefused, find_end
from agent.http1.request_reader import ParsedRequest, RequestReader
from agent.http1.response_fast import FastResponse
from agent.http1.target import TargetRefused
from agent.http1.usual_answers import UsualAnswers
from agent.inbound.request_judge import RequestJudge
from agent.policy.authorize import Verdict


class Allowed(NamedTuple):
    """A usual request, and the verdict that allows it."""

    parsed: ParsedRequest
    verdict: Verdict


class Answer(NamedTuple):
    """A whole answer as the caller gets it. `keep_alive`: the app keeps its connection."""

    written: bytes
    keep_alive: bool


class Front:
    """What one caller's requests, and their answers, are read and judged by."""

    __slots__ = ("_answers", "_judge", "_reader")

    def __init__(self, reader: RequestReader, judge: RequestJudge) -> None:
        self._reader = reader
        self._judge = judge
        self._answers = UsualAnswers()

    def request(self, received: bytes) -> Allowed | None:
        """Return the usual request that these bytes begin with; None if they begin with anything else.

        What follows its head has come with its body (`request_body.py`), the next requests in its `rest`.
        """
        try:
            end = find_end(received)
            if end is None:
                return None
            parsed = self._reader.read(received[:end], received[end:])
        except (HeadRefused, TargetRefused):
            return None
        if not parsed.usual:
            return None
        verdict = self._judge.verdict(parsed.request)
        return Allowed(parsed, verdict) if verdict.allowed and not verdict.audited else None

    def answer(self, received: bytes, method: bytes) -> Answer | None:
        """Return the usual answer that these bytes are; None if they are anything else, or a part of one."""
        fast = self._answers.read(received, method)
        if fast is None:
            return None
        if fast.chunked:
            return _in_chunks(fast, received)
        if len(received) != fast.body_start + fast.length:
            return None
        return Answer(fast.written(close=False) + received[fast.body_start :], fast.keep_alive)


def _in_chunks(fast: FastResponse, received: bytes) -> Answer | None:
    chunks = Chunks(trailer_fields)
    try:
        body = chunks.take(received[fast.body_start :])
    except ChunksBroken:
        return None
    if not chunks.ended or chunks.rest:
        return None
    return Answer(fast.written(close=False) + body, fast.keep_alive)
