"""Bytes that msgspec cannot read fail in one of the ways that the table names."""

from __future__ import annotations

import msgspec
import pytest

from agent.base.undecodable import UNDECODABLE


class Wanted(msgspec.Struct):
    """One field."""

    name: str


DEEP = b"[" * 100_000 + b"]" * 100_000  # Python 3.13 reads many thousands


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"name": 1}', b'{"name": "\xff"}', b'{"name": "", "more": ' + DEEP + b"}", DEEP],
    ids=lambda body: str(body[:30]),
)
def test_every_failure_is_in_the_table(body: bytes) -> None:
    with pytest.raises(UNDECODABLE):
        msgspec.json.decode(body, type=Wanted)
