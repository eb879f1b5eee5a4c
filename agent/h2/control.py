"""The frames that carry no application bytes and open no stream (RFC 9113 §6.3 to §6.9)."""

from __future__ import annotations

from collections.abc import Callable

from agent.h2.core import ConnectionState
from agent.h2.faults import ErrorCode, FaultReason, name_of
from agent.h2.frames import (
    ACK,
    LARGEST_FRAME,
    LARGEST_WINDOW,
    MAX_FRAME,
    Kind,
    Setting,
    frame,
    goaway,
    read_goaway,
    read_number,
    read_settings,
)
from agent.h2.stream import Stream

LEAVING = b"leaving!"  # the eight octets of the PING whose answer follows the last stream of the peer
_SHOWN = 128  # octets of debug data in a log line


def take(state: ConnectionState, kind: int, flags: int, number: int, payload: bytes) -> None:
    """Take one frame. Raises ConnectionFault. A kind that is not known is ignored (RFC 9113 §4.1)."""
    _KINDS.get(kind, _ignored)(state, flags, number, payload)


def _ignored(state: ConnectionState, _flags: int, _number: int, _payload: bytes) -> None:
    state.spend(state.empty_frames, FaultReason.FRAME_FLOOD)


def _priority(state: ConnectionState, _flags: int, number: int, payload: bytes) -> None:
    if number == 0:
        raise state.fault(FaultReason.WRONG_STREAM, detail="PRIORITY on stream 0")
    if len(payload) != 5:
        raise state.fault(FaultReason.FRAME_SIZE, ErrorCode.FRAME_SIZE_ERROR, "PRIORITY")
    state.spend(state.empty_frames, FaultReason.FRAME_FLOOD)


def _push_promise(state: ConnectionState, _flags: int, _number: int, _payload: bytes) -> None:
    raise state.fault(FaultReason.UNEXPECTED_FRAME, detail="PUSH_PROMISE, which our settings forbid")


def _continuation(state: ConnectionState, _flags: int, _number: int, _payload: bytes) -> None:
    raise state.fault(FaultReason.UNEXPECTED_FRAME, detail="CONTINUATION without HEADERS")


def _rst_stream(state: ConnectionState, _flags: int, number: int, payload: bytes) -> None:
    if len(payload) != 4:
        raise state.fault(FaultReason.FRAME_SIZE, ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM")
    stream = _stream(state, number)
    if stream is None:
        state.spend(state.empty_frames, FaultReason.FRAME_FLOOD)
        return
    state.drop(stream)
    if not stream.sent:
        state.spend(state.resets, FaultReason.RESET_FLOOD)
    if stream.owner is not None:
        code = read_number(payload)
        stream.owner.on_reset(code, f"RST_STREAM {name_of(code)}")


def _settings(state: ConnectionState, flags: int, number: int, payload: bytes) -> None:
    if number != 0:
        raise state.fault(FaultReason.WRONG_STREAM, detail="SETTINGS on a stream")
    if len(payload) % 6 or (flags & ACK and payload):
        raise state.fault(FaultReason.FRAME_SIZE, ErrorCode.FRAME_SIZE_ERROR, "SETTINGS")
    state.spend(state.settings_frames, FaultReason.SETTINGS_FLOOD)
    if flags & ACK:
        return
    state.answer(frame(Kind.SETTINGS, ACK, 0))  # before what a wider window lets out (RFC 9113 §6.5.3)
    for name, value in read_settings(payload):
        _setting(state, name, value)


def _setting(state: ConnectionState, name: int, value: int) -> None:
    if name == Setting.INITIAL_WINDOW_SIZE:
        if value > LARGEST_WINDOW:
            raise state.fault(FaultReason.SETTINGS, ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE")
        change, state.peer_window = value - state.peer_window, value
        for stream in tuple(state.streams.values()):
            _widen(state, stream, change, ErrorCode.FLOW_CONTROL_ERROR)
    elif name == Setting.MAX_FRAME_SIZE:
        if not MAX_FRAME <= value <= LARGEST_FRAME:
            raise state.fault(FaultReason.SETTINGS, detail="MAX_FRAME_SIZE")
    elif name == Setting.MAX_CONCURRENT_STREAMS:
        state.peer_most_streams = value
    elif name in (Setting.ENABLE_PUSH, Setting.ENABLE_CONNECT_PROTOCOL) and value > 1:
        raise state.fault(FaultReason.SETTINGS, detail=Setting(name).name)


def _widen(state: ConnectionState, stream: Stream, change: int, code: ErrorCode) -> None:
    if stream.send_window + change > LARGEST_WINDOW:
        raise state.fault(FaultReason.WINDOW_OVERFLOW, code, f"stream {stream.id}")
    stream.send_window += change
    if stream.starved and stream.send_window > 0 and stream.owner is not None:
        stream.starved = False
        stream.owner.on_room()


def _ping(state: ConnectionState, flags: int, number: int, payload: bytes) -> None:
    if number != 0:
        raise state.fault(FaultReason.WRONG_STREAM, detail="PING on a stream")
    if len(payload) != 8:
        raise state.fault(FaultReason.FRAME_SIZE, ErrorCode.FRAME_SIZE_ERROR, "PING")
    state.spend(state.pings, FaultReason.PING_FLOOD)
    if not flags & ACK:
        state.answer(frame(Kind.PING, ACK, 0, payload))
    elif payload == LEAVING and state.leaving and state.refuses_after is None:
        state.refuses_after = state.last_peer_id
        state.queue(goaway(state.last_peer_id, ErrorCode.NO_ERROR))
    else:
        state.handler.on_pong()


def _goaway(state: ConnectionState, _flags: int, number: int, payload: bytes) -> None:
    if number != 0:
        raise state.fault(FaultReason.WRONG_STREAM, detail="GOAWAY on a stream")
    if len(payload) < 8:
        raise state.fault(FaultReason.FRAME_SIZE, ErrorCode.FRAME_SIZE_ERROR, "GOAWAY")
    state.spend(state.settings_frames, FaultReason.SETTINGS_FLOOD)
    last, code, debug = read_goaway(payload)
    state.peer_left = True
    if state.client:
        for stream in [stream for stream in state.streams.values() if stream.id > last]:
            state.drop(stream)
            if stream.owner is not None:
                stream.owner.on_reset(ErrorCode.REFUSED_STREAM, "GOAWAY before it was seen")
    shown = debug[:_SHOWN].decode("ascii", "replace")
    state.handler.on_goaway(code, f"GOAWAY {name_of(code)}" + (f": {shown!r}" if shown else ""))


def _window_update(state: ConnectionState, _flags: int, number: int, payload: bytes) -> None:
    if len(payload) != 4:
        raise state.fault(FaultReason.FRAME_SIZE, ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE")
    increment = read_number(payload) & LARGEST_WINDOW
    if number == 0:
        _widen_connection(state, increment)
        return
    stream = _stream(state, number)
    if stream is None:
        return  # RFC 9113 §5.1: it may come for a while after the end
    if not increment:
        state.stream_error(stream, ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
    elif stream.send_window + increment > LARGEST_WINDOW:
        state.stream_error(stream, ErrorCode.FLOW_CONTROL_ERROR, "WINDOW_UPDATE beyond 2^31-1")
    else:
        _widen(state, stream, increment, ErrorCode.FLOW_CONTROL_ERROR)


def _widen_connection(state: ConnectionState, increment: int) -> None:
    if not increment:
        raise state.fault(FaultReason.ZERO_INCREMENT)
    if state.send_window + increment > LARGEST_WINDOW:
        raise state.fault(FaultReason.WINDOW_OVERFLOW, ErrorCode.FLOW_CONTROL_ERROR, "the connection")
    was_shut = state.send_window <= 0
    state.send_window += increment
    if was_shut:
        state.handler.on_room()


def _stream(state: ConnectionState, number: int) -> Stream | None:
    """Return the stream; None if it is over. Raises ConnectionFault if it was never opened."""
    stream = state.streams.get(number)
    if stream is None and state.is_idle(number):
        raise state.fault(FaultReason.WRONG_STREAM, detail=f"stream {number} was never opened")
    return stream


_KINDS: dict[int, Callable[[ConnectionState, int, int, bytes], None]] = {
    Kind.PRIORITY: _priority,
    Kind.RST_STREAM: _rst_stream,
    Kind.SETTINGS: _settings,
    Kind.PUSH_PROMISE: _push_promise,
    Kind.PING: _ping,
    Kind.GOAWAY: _goaway,
    Kind.WINDOW_UPDATE: _window_update,
    Kind.CONTINUATION: _continuation,
}
