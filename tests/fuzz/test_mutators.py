"""What the mutators make is, most of the time, still a document or an encoding."""

from __future__ import annotations

import json
from random import Random

from tests.certs.authority import Issuer
from tests.fuzz.mutators import der, json_with

DOCUMENT = {"a": [1, {"b": "c"}], "d": None}
CERTIFICATE = Issuer.root().certificate.tbs_certificate_bytes


def plain(data: bytes, most: int) -> bytes:
    return (data[:1] + data)[:most]


def is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def test_documents_stay_documents_and_change() -> None:
    mutate, rng = json_with(["a", "word"]), Random(1)
    made = [mutate(json.dumps(DOCUMENT).encode(), 10_000, rng, plain) for _ in range(300)]
    assert len(set(made)) > 100
    assert sum(map(is_json, made)) > 150
    assert any(b"word" in text for text in made)


def test_what_is_no_document_is_changed_plainly() -> None:
    assert json_with(["a"])(b"{", 100, Random(1), plain) == b"{{"
    assert json_with(["a"])(b"[" * 5000, 9000, Random(1), plain) == b"[" * 5001


def test_nothing_becomes_longer_than_it_may() -> None:
    mutate, rng = json_with(["a"]), Random(1)
    assert all(len(mutate(b'{"a": 1}', 20, rng, plain)) <= 20 for _ in range(300))
    assert all(len(der(CERTIFICATE, len(CERTIFICATE), rng, plain)) <= len(CERTIFICATE) for _ in range(300))


def outer_length(encoding: bytes) -> int:
    assert encoding[:2] == b"\x30\x82"
    return 4 + int.from_bytes(encoding[2:4], "big")


def test_lengths_are_mended_around_what_changed() -> None:
    rng = Random(1)
    made = [der(CERTIFICATE, 10_000, rng, plain) for _ in range(300)]
    right = [one for one in made if one[:2] == b"\x30\x82" and outer_length(one) == len(one)]
    assert len(set(right)) > 100
    assert len(set(map(len, right))) > 10
