"""Header blocks of CONNECT as bytes (RFC 7541): the known ones by hand, every other by `hpack`.

Our own blocks consist of literals that are never indexed, so that each is the same octets every time and no
side keeps a table for them. A peer may use the whole of HPACK: `BlockReader` has its table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.h2.faults import ConnectionFault, ErrorCode, FaultReason

if TYPE_CHECKING:
    from hpack import Decoder

Fields = list[tuple[bytes, bytes]]

MOST_FIELDS = 16 * 1024  # octets of a header list, counted as RFC 9113 §10.5.1 does

_CONNECT = b"\x02\x07CONNECT"  # `:method` by its place in the static table, a literal that is not indexed
_AUTHORITY = 0x01  # the same for `:authority`
_STATUS = 0x08  # the same for `:status`
OK = b"\x88"  # the block of `:status: 200`, by its place in the static table
OK_FIELDS: Fields = [(b":status", b"200")]
_ONE_OCTET = 0x7F  # the first length that needs more than seven bits


def request_block(authority: bytes) -> bytes:
    """Return the block of a CONNECT request."""
    return _CONNECT + bytes([_AUTHORITY]) + _text(authority)


def response_block(status: int, fields: Fields) -> bytes:
    """Return the block of a response; the names are in lower case."""
    if status == 200 and not fields:
        return OK
    head = bytes([_STATUS]) + _text(b"%d" % status)
    return head + b"".join(b"\x00" + _text(name) + _text(value) for name, value in fields)


def _text(value: bytes) -> bytes:
    """Return a string literal without Huffman coding (RFC 7541 §5.2)."""
    size = len(value)
    if size < _ONE_OCTET:
        return bytes([size]) + value
    out, size = bytearray([_ONE_OCTET]), size - _ONE_OCTET
    while size >= 0x80:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    out.append(size)
    return bytes(out) + value


class BlockReader:
    """Reads the blocks of one peer, in their order."""

    __slots__ = ("_decoder", "_last", "_last_fields")

    def __init__(self) -> None:
        self._decoder: Decoder | None = None
        self._last = b""  # known block; it says the same each time, since it has no part in the table
        self._last_fields: Fields = []

    def read(self, block: bytes) -> Fields:
        """Return names and values in order. Raises ConnectionFault, after which no block can be read."""
        if block == self._last and block:
            return self._last_fields
        fields = _known(block)
        if fields is None:
            return self._unknown(block)
        self._last, self._last_fields = block, fields
        return fields

    def _unknown(self, block: bytes) -> Fields:
        from hpack import (  # noqa: PLC0415 - 0.6 MB and 6 to 12 ms, which a tunnel between two of ours never needs
            Decoder,
            HPACKError,
            OversizedHeaderListError,
        )

        if self._decoder is None:
            self._decoder = Decoder(max_header_list_size=MOST_FIELDS)
        try:
            return [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except OversizedHeaderListError as error:
            detail = f"more than {MOST_FIELDS} octets"
            raise ConnectionFault(
                FaultReason.HEADERS_TOO_LARGE, ErrorCode.ENHANCE_YOUR_CALM, detail
            ) from error
        except HPACKError as error:
            raise ConnectionFault(
                FaultReason.HEADER_BLOCK, ErrorCode.COMPRESSION_ERROR, str(error)
            ) from error


def _known(block: bytes) -> Fields | None:
    """Return the fields of a block that `request_block` or `response_block` makes; None for another one.

    These blocks neither read nor change the table of HPACK.
    """
    if block == OK:
        return OK_FIELDS
    at = len(_CONNECT)
    if block.startswith(_CONNECT) and len(block) > at + 2 and block[at] == _AUTHORITY:
        size = block[at + 1]
        if size < _ONE_OCTET and size == len(block) - at - 2:
            return [(b":method", b"CONNECT"), (b":authority", block[at + 2 :])]
    return None
