"""What is sealed opens with the same secret and the same header, and with nothing else."""

from __future__ import annotations

import os

import pytest

from certs.sealed import LEAST_SECRET, NONCE_BYTES, SealBroken, seal, unseal

SECRET, NONCE, HEADER = os.urandom(LEAST_SECRET), os.urandom(NONCE_BYTES), b"state of web\n"


def test_it_opens_with_the_same_secret_and_shows_nothing() -> None:
    sealed = seal(SECRET, NONCE, HEADER, b"PRIVATE KEY")
    assert b"PRIVATE" not in sealed
    assert unseal(SECRET, HEADER, sealed) == b"PRIVATE KEY"


def test_each_nonce_gives_other_bytes() -> None:
    assert seal(SECRET, NONCE, HEADER, b"x")[12:] != seal(SECRET, os.urandom(NONCE_BYTES), HEADER, b"x")[12:]


@pytest.mark.parametrize("cut", [0, 5, 12, 20])
def test_what_is_cut_short_does_not_open(cut: int) -> None:
    with pytest.raises(SealBroken):
        unseal(SECRET, HEADER, seal(SECRET, NONCE, HEADER, b"PRIVATE KEY")[:cut])


def test_no_other_secret_header_or_byte_opens_it() -> None:
    sealed = seal(SECRET, NONCE, HEADER, b"x")
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(SealBroken):
            unseal(SECRET, HEADER, bytes(changed))
    for secret, header in ((os.urandom(LEAST_SECRET), HEADER), (SECRET, b"state of db\n")):
        with pytest.raises(SealBroken):
            unseal(secret, header, sealed)
