"""The frames of RFC 9113 §4 and §6 as bytes: nine octets of head, and the payloads that we send."""

from __future__ import annotations

import struct
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 §3.4
HEAD_SIZE = 9
MAX_FRAME = 16384  # octets of payload: the least that SETTINGS_MAX_FRAME_SIZE may be, and ours
RECORD_FRAME = MAX_FRAME - HEAD_SIZE  # a DATA frame that fills one TLS record, with its head
LARGEST_FRAME = 2**24 - 1
LARGEST_WINDOW = 2**31 - 1
DEFAULT_WINDOW = 65535

# Length in 16 and 8 bits, type, flags, stream.
HEAD = struct.Struct(">HBBBI")
_NUMBER = struct.Struct(">I")
_SETTING = struct.Struct(">HI")
_GOAWAY = struct.Struct(">II")


class Kind(IntEnum):
    """RFC 9113 §6."""

    DATA = 0x0
    HEADERS = 0x1
    PRIORITY = 0x2
    RST_STREAM = 0x3
    SETTINGS = 0x4
    PUSH_PROMISE = 0x5
    PING = 0x6
    GOAWAY = 0x7
    WINDOW_UPDATE = 0x8
    CONTINUATION = 0x9


END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY = 0x20


class Setting(IntEnum):
    """RFC 9113 §6.5.2, and RFC 8441."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6
    ENABLE_CONNECT_PROTOCOL = 0x8


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a whole frame; `payload` is at most LARGEST_FRAME long."""
    size = len(payload)
    return HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def settings(values: dict[Setting, int]) -> bytes:
    return frame(Kind.SETTINGS, 0, 0, b"".join(_SETTING.pack(name, value) for name, value in values.items()))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Return the pairs of a payload whose length is a multiple of six."""
    return list(_SETTING.iter_unpack(payload))


def window_update(stream: int, increment: int) -> bytes:
    return frame(Kind.WINDOW_UPDATE, 0, stream, _NUMBER.pack(increment))


def rst_stream(stream: int, code: int) -> bytes:
    return frame(Kind.RST_STREAM, 0, stream, _NUMBER.pack(code))


def goaway(last_stream: int, code: int, detail: bytes = b"") -> bytes:
    return frame(Kind.GOAWAY, 0, 0, _GOAWAY.pack(last_stream, code) + detail)


def read_goaway(payload: bytes) -> tuple[int, int, bytes]:
    """Return last stream, error code and debug data of a payload of at least eight octets."""
    last, code = _GOAWAY.unpack_from(payload)
    return last & LARGEST_WINDOW, code, payload[8:]


def read_number(payload: bytes) -> int:
    """Return the number of RST_STREAM and WINDOW_UPDATE, from a payload of four octets."""
    number: int = _NUMBER.unpack(payload)[0]
    return number
