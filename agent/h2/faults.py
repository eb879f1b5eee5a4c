"""The names of what ends an HTTP/2 connection or a stream, and the error codes of RFC 9113 §7."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class ErrorCode(IntEnum):
    """RFC 9113 §7."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class FaultReason(StrEnum):
    """Why a peer loses its whole connection."""

    BAD_PREFACE = "bad_preface"
    FRAME_SIZE = "frame_size"
    WRONG_STREAM = "wrong_stream"  # a frame on a stream where its kind does not belong
    UNEXPECTED_FRAME = "unexpected_frame"
    CLOSED_STREAM = "closed_stream"
    INTERRUPTED_BLOCK = "interrupted_header_block"
    HEADER_BLOCK = "bad_header_block"
    HEADERS_TOO_LARGE = "headers_too_large"
    CONTINUATION_FLOOD = "continuation_flood"
    PADDING = "bad_padding"
    SETTINGS = "bad_settings"
    SETTINGS_FLOOD = "settings_flood"
    PING_FLOOD = "ping_flood"
    RESET_FLOOD = "reset_flood"
    FRAME_FLOOD = "frame_flood"  # frames that carry nothing
    ANSWERS_UNREAD = "answers_unread"  # the peer asks for answers and reads none
    WINDOW_EXCEEDED = "window_exceeded"
    WINDOW_OVERFLOW = "window_overflow"
    ZERO_INCREMENT = "zero_increment"


class ConnectionFault(Exception):
    """The peer has broken the protocol or a bound: `code` for the peer, `reason` and `detail` for us."""

    def __init__(self, reason: FaultReason, code: ErrorCode, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.code = code
        self.detail = detail


def name_of(code: int) -> str:
    """Return the name of an error code, for a person; any number may arrive."""
    try:
        return ErrorCode(code).name
    except ValueError:
        return f"error code {code:#x}"
