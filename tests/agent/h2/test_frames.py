"""Frames as bytes, beside hyperframe."""

from __future__ import annotations

from hyperframe.frame import Frame, GoAwayFrame, PingFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from agent.h2.frames import (
    HEAD_SIZE,
    Kind,
    Setting,
    frame,
    goaway,
    read_goaway,
    read_number,
    read_settings,
    rst_stream,
    settings,
    window_update,
)


def parsed(data: bytes) -> Frame:
    found, length = Frame.parse_frame_header(memoryview(data[:HEAD_SIZE]))
    found.parse_body(memoryview(data[HEAD_SIZE : HEAD_SIZE + length]))
    assert len(data) == HEAD_SIZE + length
    return found


def test_our_frames_are_what_hyperframe_writes() -> None:
    values = {Setting.INITIAL_WINDOW_SIZE: 70000, Setting.MAX_CONCURRENT_STREAMS: 7}
    assert settings(values) == SettingsFrame(0, settings={int(k): v for k, v in values.items()}).serialize()
    assert rst_stream(5, 8) == RstStreamFrame(5, error_code=8).serialize()
    assert window_update(3, 2**31 - 1) == WindowUpdateFrame(3, window_increment=2**31 - 1).serialize()
    assert frame(Kind.PING, 1, 0, b"12345678") == PingFrame(0, b"12345678", flags=["ACK"]).serialize()
    theirs = GoAwayFrame(0, last_stream_id=9, error_code=1, additional_data=b"why")
    assert goaway(9, 1, b"why") == theirs.serialize()


def test_a_long_frame_has_its_length_in_three_octets() -> None:
    assert parsed(frame(Kind.DATA, 0, 1, b"x" * 70000)).body_len == 70000


def test_what_is_written_is_read_back() -> None:
    assert read_settings(settings({Setting.ENABLE_PUSH: 0})[HEAD_SIZE:]) == [(2, 0)]
    assert read_number(rst_stream(1, 7)[HEAD_SIZE:]) == 7
    assert read_goaway(goaway(2**31 - 1, 2, b"d")[HEAD_SIZE:]) == (2**31 - 1, 2, b"d")
