"""What crosses between our processes: a worker's words upwards, orders downwards, and the frames of both.

The first byte says which: `o` an order in JSON, to be written as MessagePack, `p` an order's bytes, `w` a
worker's word, anything else what comes over the pair of sockets. A worker talks to the network and may have
been taken over: whatever it says is refused by name or can be counted and shown.
"""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from random import Random

import msgspec
import trio

from agent.base.prometheus import Family, Kind
from agent.workers.channel import MAX_FRAME, MOST_DESCRIPTORS, Channel, ChannelClosed
from agent.workers.messages import NotAMessage, decode, encode
from agent.workers.reports import (
    AskedAgain,
    GatewaysWanted,
    NotAWorkerMessage,
    Reported,
    added_up,
    read,
    retired,
)
from tests.agent.workers.test_messages import ORDERS
from tests.fuzz.answered import words_of
from tests.fuzz.mutators import json_with
from tests.fuzz.target import Plain, Target

_SECRET = "s3cret"


def fuzz_one(data: bytes) -> None:
    """Read it as the process that hears it does."""
    kind, rest = data[:1], data[1:]
    if kind == b"o":
        with suppress(ValueError, RecursionError):
            _order(msgspec.msgpack.encode(json.loads(rest)))
    elif kind == b"p":
        _order(rest)
    elif kind == b"w":
        _word(rest)
    else:
        trio.run(_frames, rest)


def _order(frame: bytes) -> None:
    try:
        order = decode(frame)
    except NotAMessage as refused:
        assert _SECRET not in str(refused)
        return
    again = encode(order)
    assert encode(decode(again)) == again  # in bytes: a NaN equals nothing, itself neither
    assert _SECRET not in repr(order)


def _word(frame: bytes) -> None:
    try:
        word = read(frame)
    except NotAWorkerMessage:
        return
    if isinstance(word, Reported):
        families = added_up([word, word], retired(retired(None, word), word))
        assert len({family.name for family in families}) == len(families)
        msgspec.json.encode(word)


async def _frames(data: bytes) -> None:
    """They come in two pieces, and are those that stand there."""
    ours, theirs = socket.socketpair()
    with theirs:
        channel = Channel(ours)
        try:
            theirs.sendall(data[: len(data) // 2])
            theirs.sendall(data[len(data) // 2 :])
            theirs.shutdown(socket.SHUT_WR)
            heard = []
            with suppress(ChannelClosed):
                while True:
                    frame, descriptors = await channel.receive()
                    assert descriptors == []
                    heard.append(frame)
            assert heard == _expected(data)
        finally:
            channel.close()


def _expected(data: bytes) -> list[bytes]:
    found = []
    while len(data) >= 5:
        length, count = int.from_bytes(data[:4], "big"), data[4]
        if length > MAX_FRAME or count > MOST_DESCRIPTORS or count or len(data) < 5 + length:
            break
        found.append(data[5 : 5 + length])
        data = data[5 + length :]
    return found


def _as_json(frame: bytes) -> bytes:
    """A frame in JSON; empty if JSON cannot say it, as where the keys of a map are values of ours."""
    try:
        return msgspec.json.encode(msgspec.msgpack.decode(frame))
    except msgspec.DecodeError:
        return b""


_WORDS = [
    msgspec.json.encode(word)
    for word in (
        AskedAgain(number=7),
        GatewaysWanted(datacenter=None),
        GatewaysWanted(datacenter="dc2"),
        Reported(
            number=1,
            pid=7,
            live=2,
            resident_bytes=1 << 20,
            metrics=[
                Family("sidecar_connections_live", Kind.GAUGE, "Live.", [({"direction": "inbound"}, 2.0)]),
                Family("sidecar_connections_total", Kind.COUNTER, "Ended.", [({"direction": "x"}, 3.0)]),
            ],
            counters={"endings": {"inbound": {"clean": 3}}, "rejected": 0},
            cut=3,
        ),
    )
]
_RAW = [encode(order) for order in ORDERS]
_ORDERS = [text for frame in _RAW if (text := _as_json(frame))]
_CHANGE = json_with(words_of(*_ORDERS, *_WORDS))


def _mutate(data: bytes, most: int, rng: Random, plain: Plain) -> bytes:
    if data[:1] in {b"o", b"w"}:
        return data[:1] + _CHANGE(data[1:], most - 1, rng, plain)
    return plain(data, most)


def _framed(*frames: bytes) -> bytes:
    return b"f" + b"".join(len(frame).to_bytes(4, "big") + b"\0" + frame for frame in frames)


TARGET = Target(
    fuzz_one=fuzz_one,
    seeds=(
        *(b"o" + order for order in _ORDERS),
        *(b"w" + word for word in _WORDS),
        *(b"p" + frame for frame in _RAW),
        _framed(b"", b"a", b"x" * 300),
        _framed(b"whole") + b"\0\0\0\7\0half",
        b"f\xff\xff\xff\xff\0",
        b"f\0\0\0\1\1x",
        b"p\xa6Report" + b"\x81" * 1200,
        b"p\x92\xa6Report\x81\xa6number\xa1\xff",
        b'w{"type": "AskedAgain", "number": 1, "x": "\xff"}',
        b'w{"type": "AskedAgain", "x": ' + b"[" * 1200 + b"]" * 1200 + b"}",
    ),
    mutate=_mutate,
    longest=8192,
)
