"""Frames over a socket pair: whole, in order, with their descriptors, and an end that is noticed."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from agent.workers.channel import MAX_FRAME, MOST_DESCRIPTORS, Channel, ChannelClosed


@contextmanager
def pair() -> Iterator[tuple[Channel, Channel]]:
    near, far = (Channel(sock) for sock in socket.socketpair())
    try:
        yield near, far
    finally:
        near.close()
        far.close()


async def test_frames_arrive_whole_and_in_order() -> None:
    frames = [b"", b"x", os.urandom(3 << 20), b"end"]
    with pair() as (near, far):
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                for frame in frames:
                    await near.send(frame)

            nursery.start_soon(send)
            assert [await far.receive() for _ in frames] == [(frame, []) for frame in frames]


async def test_senders_at_once_do_not_mix_their_frames() -> None:
    frames = [bytes([number]) * (1 << 20) for number in range(6)]
    with pair() as (near, far):
        async with trio.open_nursery() as nursery:
            for frame in frames:
                nursery.start_soon(near.send, frame)
            got = [(await far.receive())[0] for _ in frames]
    assert sorted(got) == frames


async def test_descriptors_come_with_their_frame_and_do_not_outlive_an_exec() -> None:
    with pair() as (near, far), socket.socket() as one, socket.socket() as two:
        await near.send(b"none")
        await near.send(b"both", [one.fileno(), two.fileno()])
        await near.send(b"one", [two.fileno()])
        assert await far.receive() == (b"none", [])
        _, both = await far.receive()
        _, last = await far.receive()
        assert [len(both), len(last)] == [2, 1]
        for got, sent in zip((*both, *last), (one, two, two), strict=True):
            assert os.fstat(got).st_ino == os.fstat(sent.fileno()).st_ino
            assert not os.get_inheritable(got)
            os.close(got)


async def test_the_end_of_the_other_is_told_to_both_who_listen_and_who_send() -> None:
    with pair() as (near, far):
        far.close()
        with pytest.raises(ChannelClosed):
            await near.receive()
        with pytest.raises(ChannelClosed):
            await near.send(b"x" * 1000)


async def test_half_a_frame_is_no_frame() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    theirs.send(struct.pack("!IB", 10, 0) + b"half")
    theirs.close()
    with pytest.raises(ChannelClosed):
        await channel.receive()
    channel.close()


@pytest.mark.parametrize(
    "head", [(MAX_FRAME + 1, 0), (1, MOST_DESCRIPTORS + 1), (0, 1)], ids=["long", "many", "missing"]
)
async def test_what_cannot_be_a_frame_ends_the_channel(head: tuple[int, int]) -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    theirs.send(struct.pack("!IB", *head))
    with pytest.raises(ChannelClosed):
        await channel.receive()
    channel.close()
    theirs.close()


async def test_what_was_not_taken_is_closed() -> None:
    ours, theirs = socket.socketpair()
    near, far = Channel(ours), Channel(theirs)
    reader, writer = os.pipe()
    await near.send(b"first")
    await near.send(b"second", [writer])
    os.close(writer)
    await far.receive()
    far.close()
    near.close()
    assert os.read(reader, 1) == b""  # nobody holds the other end any more
    os.close(reader)
