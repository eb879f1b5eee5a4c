"""Header blocks: the known ones by hand, the others by hpack, which is the oracle of all."""

from __future__ import annotations

import pytest
from hpack import Decoder, Encoder
from hypothesis import given
from hypothesis import strategies as st

from agent.h2.faults import ConnectionFault, ErrorCode, FaultReason
from agent.h2.header_blocks import MOST_FIELDS, BlockReader, request_block, response_block


def by_hpack(block: bytes) -> list[tuple[bytes, bytes]]:
    return [(bytes(name), bytes(value)) for name, value in Decoder().decode(block, raw=True)]


@given(st.binary(max_size=5000))
def test_a_request_of_ours_is_read_alike_by_hpack_and_by_us(authority: bytes) -> None:
    block = request_block(authority)
    expected = [(b":method", b"CONNECT"), (b":authority", authority)]
    assert by_hpack(block) == BlockReader().read(block) == expected


@given(st.integers(100, 999), st.lists(st.tuples(st.binary(max_size=300), st.binary(max_size=300))))
def test_a_response_of_ours_is_read_alike_by_hpack_and_by_us(
    status: int, fields: list[tuple[bytes, bytes]]
) -> None:
    block = response_block(status, fields)
    expected = [(b":status", b"%d" % status), *fields]
    assert by_hpack(block) == BlockReader().read(block) == expected


@given(st.binary(max_size=200))
def test_any_block_is_read_as_hpack_reads_it(block: bytes) -> None:
    try:
        expected = by_hpack(block)
    except Exception:  # noqa: BLE001 - whatever hpack says of it
        with pytest.raises(ConnectionFault):
            BlockReader().read(block)
    else:
        assert BlockReader().read(block) == expected


def test_the_table_of_a_peer_outlives_blocks_read_by_hand() -> None:
    encoder, reader = Encoder(), BlockReader()
    fields = [(b":method", b"CONNECT"), (b":authority", b"db:443")]
    for _ in range(3):
        assert reader.read(encoder.encode(fields)) == fields
        assert reader.read(request_block(b"other")) == [(b":method", b"CONNECT"), (b":authority", b"other")]


def test_a_bomb_is_refused_by_name() -> None:
    encoder, reader = Encoder(), BlockReader()
    reader.read(encoder.encode([(b"a", b"x" * 3000)]))
    bomb = encoder.encode([(b"a", b"x" * 3000)] * (MOST_FIELDS // 3000 + 1))
    assert len(bomb) < 10
    with pytest.raises(ConnectionFault) as caught:
        reader.read(bomb)
    assert (caught.value.reason, caught.value.code) == (
        FaultReason.HEADERS_TOO_LARGE,
        ErrorCode.ENHANCE_YOUR_CALM,
    )


def test_an_index_beyond_the_table_is_a_bad_block() -> None:
    with pytest.raises(ConnectionFault) as caught:
        BlockReader().read(b"\xff\xff\x01")
    assert (caught.value.reason, caught.value.code) == (
        FaultReason.HEADER_BLOCK,
        ErrorCode.COMPRESSION_ERROR,
    )
