"""A tunnel over real sockets: bytes, ends, resets, faults, and who waits for whom."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator

import pytest
import trio
import trio.lowlevel
from OpenSSL._util import lib

from agent.h2.core import MOST_STREAM_WINDOW
from agent.h2.faults import ErrorCode, FaultReason
from agent.h2.frames import Kind, frame
from agent.h2.stream import Stream
from agent.relay.splice import Ending, Progress
from agent.tunnel.byte_stream import TunnelStream
from agent.tunnel.ends import TunnelReason
from agent.tunnel.leg import Leg
from agent.tunnel.refusal import refusal_fields
from agent.tunnel.tunnel import Tunnel
from certs.contexts import Contexts
from tests.certs.authority import Issuer
from tests.support.socket_pairs import contexts_of
from tests.support.tunnels import Ends, receive, send, tunnelled, until


@pytest.fixture(scope="module")
def contexts() -> Contexts:
    root = Issuer.root()
    return contexts_of(root.leaf(), root)


@pytest.fixture
async def ends(contexts: Contexts) -> AsyncIterator[Ends]:
    async with tunnelled(contexts) as made:
        yield made


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def drain(sock: socket.socket) -> None:
    while sock.recv(65536):
        pass


async def wait_reset(sock: socket.socket) -> None:
    with trio.fail_after(5):
        await trio.lowlevel.wait_readable(sock)
        with pytest.raises(ConnectionResetError):
            drain(sock)


async def test_bytes_go_both_ways_and_each_side_ends_by_itself(ends: Ends) -> None:
    caller, app = await ends.open()
    await send(caller, b"question")
    caller.shutdown(socket.SHUT_WR)
    assert await receive(app, 100) == b"question"
    await send(app, b"answer" * 50_000)
    app.close()
    assert await receive(caller, 300_001) == b"answer" * 50_000
    (transfer,) = await ends.over()
    assert (transfer.ending, transfer.to_tls, transfer.to_plain) == (Ending.CLEAN, 8, 300_000)
    assert transfer.answered
    assert ends.far_end.over[0].transfer().to_plain == 8
    assert (ends.near.streams, ends.far.streams) == (0, 0)


async def test_bulk_arrives_whole_in_both_directions_at_once(ends: Ends) -> None:
    caller, app = await ends.open()
    up, down = bytes(range(256)) * 20_000, bytes(reversed(range(256))) * 20_000
    got: dict[str, bytes] = {}

    async def take(name: str, sock: socket.socket, size: int) -> None:
        got[name] = await receive(sock, size)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, caller, up)
        nursery.start_soon(send, app, down)
        nursery.start_soon(take, "up", app, len(up))
        nursery.start_soon(take, "down", caller, len(down))
    assert got == {"up": up, "down": down}


async def test_a_reset_of_either_side_is_a_reset_of_the_other(ends: Ends) -> None:
    caller, app = await ends.open()
    await send(caller, b"x")
    await receive(app, 1)
    reset(caller)
    await wait_reset(app)
    caller, app = await ends.open()
    await send(caller, b"x")
    await receive(app, 1)
    reset(app)
    await wait_reset(caller)
    transfers = await ends.over(2)
    assert [t.ending for t in transfers] == [Ending.PLAIN_RESET, Ending.TLS_RESET]
    assert transfers[1].detail == "RST_STREAM CONNECT_ERROR"


async def test_a_slow_reader_stops_no_other_stream_and_loses_no_byte(ends: Ends) -> None:
    slow_caller, slow_app = await ends.open()
    data = bytes(range(256)) * 80_000
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, slow_caller, data)
        for _ in range(50):
            caller, app = await ends.open()
            await send(caller, b"ping")
            assert await receive(app, 4) == b"ping"
            caller.close()
            app.close()
        held = sum(map(len, ends.far_end.legs[0]._inbox)) + len(ends.far_end.legs[0]._rest or b"")
        assert held <= MOST_STREAM_WINDOW
        assert await receive(slow_app, len(data)) == data


async def test_bulk_streams_share_the_tunnel_within_a_factor_of_two(ends: Ends) -> None:
    pairs = [await ends.open() for _ in range(4)]
    counts = [0] * len(pairs)
    block = bytes(1 << 20)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def pour(caller: socket.socket) -> None:
                while True:
                    await send(caller, block)

            async def drink(number: int, app: socket.socket) -> None:
                while sum(counts) < 64 << 20:
                    await trio.lowlevel.wait_readable(app)
                    counts[number] += len(app.recv(1 << 18))
                scope.cancel()

            for number, (caller, app) in enumerate(pairs):
                nursery.start_soon(pour, caller)
                nursery.start_soon(drink, number, app)
    assert max(counts) < 2 * min(counts), counts


async def test_a_refused_stream_names_the_reason_and_takes_nothing_else_along(ends: Ends) -> None:
    caller, app = await ends.open()

    def refuse(tunnel: Tunnel, stream: Stream) -> None:
        tunnel.h2.refuse(stream, 403, refusal_fields(403, "intention_deny"))

    ends.far_end.on_stream = refuse
    refused = ends.call()
    await wait_reset(refused)
    assert ends.transfers[0].detail == "403 intention_deny"
    assert (ends.transfers[0].ending, ends.transfers[0].refused, ends.transfers[0].untouched) == (
        Ending.REFUSED,
        True,
        True,
    )
    await send(caller, b"still")
    assert await receive(app, 5) == b"still"


async def test_a_cut_stream_is_reset_at_both_ends_and_no_other_is(ends: Ends) -> None:
    caller, app = await ends.open()
    other, other_app = await ends.open()
    ends.far_end.legs[0].cut(ErrorCode.CANCEL)
    ends.far.wake()
    reset(ends.far_end.legs[0].sock)
    await wait_reset(caller)
    await wait_reset(app)
    await send(other, b"still")
    assert await receive(other_app, 5) == b"still"


async def test_a_cancelled_connection_cuts_its_stream(ends: Ends) -> None:
    caller, app = await ends.open()
    ends.scopes[0].cancel()
    await wait_reset(app)
    await wait_reset(caller)
    assert ends.near.streams == 0


async def test_a_retired_tunnel_serves_what_is_open_and_takes_no_more(ends: Ends) -> None:
    caller, app = await ends.open()
    ends.far.retire()
    await until(lambda: not ends.near.takes_streams)
    await send(caller, b"still")
    assert await receive(app, 5) == b"still"


async def test_the_end_of_a_tunnel_is_a_truncation_of_its_streams(ends: Ends) -> None:
    caller, app = await ends.open()
    await send(caller, b"x")
    await receive(app, 1)
    ends.far.end(TunnelReason.RETIRED, "newer credentials")
    await wait_reset(caller)
    await wait_reset(app)
    await ends.near.ended.wait()
    assert ends.transfers[0].ending is Ending.TLS_TRUNCATED
    assert ends.near.reason is Ending.TLS_TRUNCATED
    assert not ends.near.takes_streams


async def test_an_orderly_end_without_streams_is_no_failure(ends: Ends) -> None:
    await ends.open()
    ends.socks[0].close()
    ends.far_end.legs[0].cut(ErrorCode.CANCEL)
    ends.far.wake()
    ends.near.end(TunnelReason.RETIRED)
    await ends.far.ended.wait()
    assert ends.far.reason is TunnelReason.LEFT


async def test_a_peer_that_breaks_the_protocol_loses_its_tunnel_by_name(ends: Ends) -> None:
    caller, _ = await ends.open()
    ends.near.h2.queue(frame(Kind.PING, 0, 0, bytes(8)) * 100)
    ends.near.wake()
    await ends.far.ended.wait()
    assert (ends.far.reason, ends.far_end.over[0].ending) == (FaultReason.PING_FLOOD, Ending.TLS_TRUNCATED)
    await wait_reset(caller)


async def test_a_silent_peer_is_asked_and_given_up(ends: Ends) -> None:
    await ends.open()
    assert ends.near.look()  # it was heard of
    assert ends.near.look()  # asked
    await until(lambda: ends.near.heard)
    assert ends.near.look()
    ends.near.relay.detach(ends.far._sock.fileno(), ends.far._watch)  # the far end hears no more
    assert ends.near.look()
    assert not ends.near.look()
    assert ends.near.reason is TunnelReason.NO_PONG


async def test_a_tcp_end_is_a_truncation(ends: Ends) -> None:
    caller, _ = await ends.open()
    ends.far.relay.detach(ends.far._sock.fileno(), ends.far._watch)
    ends.far._sock.close()
    await wait_reset(caller)
    assert ends.near.reason in (Ending.TLS_TRUNCATED, Ending.TLS_RESET)


async def test_an_unforeseen_exception_ends_its_stream_alone(ends: Ends) -> None:
    caller, app = await ends.open()
    other, other_app = await ends.open()
    leg = ends.far_end.legs[0]
    broken = RuntimeError("a bug")

    class Exploding:
        def recv(self, size: int) -> bytes:
            raise broken

        def __getattr__(self, name: str) -> object:
            return getattr(sock, name)

    sock = leg.sock
    leg.sock = Exploding()  # type: ignore[assignment]  # stands for the socket
    await send(app, b"x")
    await wait_reset(caller)
    assert leg.failure is broken
    await send(other, b"still")
    assert await receive(other_app, 5) == b"still"
    sock.close()


async def test_half_written_records_of_a_blocked_tunnel_go_on_when_it_takes_bytes_again(
    ends: Ends,
) -> None:
    """The far end does not read for a while: the near end waits, then everything arrives."""
    caller, app = await ends.open()
    ends.far._watch.want(0)
    data = bytes(range(256)) * 40_000
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, caller, data)
        await trio.sleep(0.1)
        assert ends.near.h2.queued <= 512 * 1024
        ends.far._watch.want(1)
        assert await receive(app, len(data)) == data


async def test_a_new_stream_and_its_first_bytes_wait_for_no_answer(contexts: Contexts) -> None:
    """Across a WAN a new connection costs no round trip of its own."""
    taken: list[TunnelStream] = []

    def take(tunnel: Tunnel, stream: Stream) -> None:
        taken.append(TunnelStream(tunnel, stream, Progress()))
        stream.owner = taken[-1]

    async with tunnelled(contexts) as ends:
        ends.far_end.on_stream = take
        caller = ends.call()
        await send(caller, b"hello")
        with trio.fail_after(5):
            while not taken:
                await trio.lowlevel.checkpoint()
            assert await taken[0].receive() == b"hello"
        assert not taken[0].stream.answered
        taken[0].close(ErrorCode.NO_ERROR)


async def test_last_words_into_a_connection_that_is_shut_leave_no_error_for_the_others(ends: Ends) -> None:
    ends.near._sock.shutdown(socket.SHUT_WR)
    ends.near.end(TunnelReason.RETIRED)
    assert not lib.ERR_peek_error()


async def test_a_bug_at_the_end_of_a_stream_ends_the_tunnel_and_is_heard_of(ends: Ends) -> None:
    caller, app = await ends.open()
    broken = RuntimeError("a bug")

    def explode(_leg: Leg) -> None:
        raise broken

    caller.shutdown(socket.SHUT_WR)
    assert await receive(app, 1) == b""
    ends.far_end.legs[0]._on_over = explode
    app.close()
    with trio.fail_after(5):
        await ends.far.ended.wait()
    assert ends.far.failure is broken
