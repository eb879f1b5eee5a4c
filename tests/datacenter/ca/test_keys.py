"""Keys of an authority: kinds, text form, identifiers."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from datacenter.ca.keys import InvalidKey, KeyKind, generate_key, key_id, key_pem, kind_of, load_key

EC_KINDS = [KeyKind("ec", bits) for bits in (224, 256, 384, 521)]


@pytest.mark.parametrize("kind", [*EC_KINDS, KeyKind("rsa", 2048)], ids=str)
def test_a_key_of_every_kind_survives_its_text(kind: KeyKind) -> None:
    key = generate_key(kind)
    again = load_key(key_pem(key))
    assert kind_of(again.public_key()) == kind
    assert again.public_key() == key.public_key()


def test_an_ec_key_is_written_as_sec1() -> None:
    assert key_pem(generate_key()).startswith("-----BEGIN EC PRIVATE KEY-----\n")


@pytest.mark.parametrize(
    ("kind", "bits", "text"),
    [
        ("ec", 255, "EC key length must be one of (224, 256, 384, 521) bits"),
        ("rsa", 1024, "RSA key length must be 2048 or 4096 bits"),
        ("dsa", 2048, "private key type must be either 'ec' or 'rsa'"),
    ],
)
def test_other_kinds_are_refused_in_consuls_words(kind: str, bits: int, text: str) -> None:
    with pytest.raises(InvalidKey) as caught:
        KeyKind(kind, bits)
    assert str(caught.value) == text


def test_rubbish_is_refused_without_quoting_it() -> None:
    secret = "-----BEGIN EC PRIVATE KEY-----\nc2VjcmV0\n-----END EC PRIVATE KEY-----\n"
    with pytest.raises(InvalidKey) as caught:
        load_key(secret)
    assert "c2VjcmV0" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "key",
    [ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(public_exponent=65537, key_size=1024)],
    ids=["ed25519", "rsa 1024"],
)
def test_a_key_of_another_kind_is_refused(key: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey) -> None:
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(InvalidKey):
        load_key(pem.decode())


def test_a_key_id_is_32_bytes_and_belongs_to_one_key() -> None:
    one, other = generate_key(), generate_key()
    assert len(key_id(one.public_key())) == 32
    assert key_id(one.public_key()) == key_id(load_key(key_pem(one)).public_key())
    assert key_id(one.public_key()) != key_id(other.public_key())
