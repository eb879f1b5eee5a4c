"""Durations as Go writes them: agent and embedded datacenter read any text alike, or both refuse it."""

from __future__ import annotations

import math

from agent.config import parsers
from datacenter.state.durations import format_duration, parse_duration
from tests.fuzz.target import Target


def fuzz_one(data: bytes) -> None:
    """Read it twice."""
    text = data.decode("utf-8", "replace")
    ours, theirs = _agents(text), _datacenters(text)
    assert ours is None or (ours >= 0 and (math.isfinite(ours) or len(text) > 300))
    if text[:1] not in {"+", "-", ""}:  # a time to wait has no sign
        assert ours == theirs, (ours, theirs)
    if theirs is not None and abs(theirs) < 1e9:
        again = parse_duration(format_duration(theirs))
        assert abs(again - theirs) <= 0.001


def _agents(text: str) -> float | None:
    try:
        return parsers.parse_duration(text)
    except parsers.InvalidDuration:
        return None


def _datacenters(text: str) -> float | None:
    try:
        return parse_duration(text)
    except ValueError:
        return None


TARGET = Target(
    fuzz_one=fuzz_one,
    seeds=(
        b"10s",
        b"1h30m",
        b"1.5s",
        b"300ms",
        b"0",
        b"-1m",
        b".5us",
        b"1\xc2\xb5s",
        b"1\xce\xbcs",
        b"10",
        b"1x",
    ),
    words=(b"ns", b"us", b"ms", b"s", b"m", b"h", b".", b"9" * 60, b"\xc2\xb5s", b"\xd9\xa1"),
    longest=1024,
)
