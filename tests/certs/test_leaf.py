"""A leaf is read whole: certificate, extras in order, key; and never shows its key."""

from __future__ import annotations

import traceback

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa, x25519

from certs.leaf import (
    MOST_BYTES,
    MOST_CERTIFICATES,
    LeafReason,
    LeafRejected,
    PrivateKey,
    parse_leaf,
    serial_text,
)
from tests.certs.authority import Issuer, key_pem, new_key, service_uri
from tests.certs.fitting import AT, leaf_of, recorded_leaf, root
from tests.recorded import body


def test_reads_identity_window_and_serial() -> None:
    minted = root().leaf(service="db", datacenter="dc2", serial=0x01FF)
    leaf = leaf_of(minted)
    assert str(leaf.id) == service_uri("db", "dc2")
    assert leaf.serial == "01:ff"
    assert leaf.not_before < AT < leaf.not_after
    assert leaf.certificate == minted.certificate
    assert leaf.key.private_numbers() == minted.key.private_numbers()  # type: ignore[union-attr]


def test_extras_keep_the_order_received() -> None:
    old, new = root(), root()
    signer = new.with_chain(old.cross_sign(new)).intermediate()
    leaf = leaf_of(signer.leaf())
    assert leaf.extra == signer.chain
    assert leaf.extra[0].subject == new.certificate.subject


@pytest.mark.parametrize(
    ("name", "extras"), [("rotation-leaf1-1", 0), ("rotation-leaf1-2", 1), ("rotation-leaf2-2", 2)]
)
def test_recorded_leaves(name: str, extras: int) -> None:
    leaf, answer = recorded_leaf(name), body(name)
    assert leaf.serial == answer["SerialNumber"]
    assert str(leaf.id) == answer["ServiceURI"]
    assert leaf.not_after.isoformat().replace("+00:00", "Z") == answer["ValidBefore"]
    assert len(leaf.extra) == extras


def pkcs8(key: PrivateKey | x25519.X25519PrivateKey) -> str:
    data = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return data.decode()


@pytest.mark.parametrize(
    "key",
    [ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048), new_key()],
    ids=["ed", "rsa", "ec"],
)
def test_signing_keys_of_other_kinds_and_forms_are_read(key: PrivateKey) -> None:
    leaf = parse_leaf(root().leaf().cert_pem, pkcs8(key))
    assert leaf.key.public_key() == key.public_key()


def minted(**flaws: object) -> str:
    return Issuer.root(now=AT).leaf(**flaws).cert_pem  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cert_pem", "key", "reason"),
    [
        ("", key_pem(new_key()), LeafReason.BAD_CERTIFICATE),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "", LeafReason.BAD_CERTIFICATE),
        (minted(uris=()), "", LeafReason.NO_URI),
        (minted(uris=[service_uri("a", "dc1"), service_uri("b", "dc1")]), "", LeafReason.SEVERAL_URIS),
        (minted(uris=["spiffe://x y"]), "", LeafReason.INVALID_ID),
        (minted(uris=["spiffe://x.consul"]), "", LeafReason.NOT_A_SERVICE),
        (minted(), "", LeafReason.BAD_KEY),
        (minted() * (MOST_CERTIFICATES + 1), "", LeafReason.OVERSIZED_CHAIN),
        (minted() + "\n" * 2 * MOST_BYTES, "", LeafReason.OVERSIZED_CHAIN),
        (minted(), "-----BEGIN EC PRIVATE KEY-----\n-----END EC PRIVATE KEY-----\n", LeafReason.BAD_KEY),
        (minted(), pkcs8(x25519.X25519PrivateKey.generate()), LeafReason.BAD_KEY),
    ],
)
def test_unusable_leaves_are_named(cert_pem: str, key: str, reason: LeafReason) -> None:
    with pytest.raises(LeafRejected) as caught:
        parse_leaf(cert_pem, key)
    assert caught.value.reason is reason


def test_encrypted_key_is_refused() -> None:
    text = new_key().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"x"),
    )
    with pytest.raises(LeafRejected) as caught:
        parse_leaf(minted(), text.decode())
    assert caught.value.reason is LeafReason.BAD_KEY


def secret_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and "-----" not in line]


def test_repr_never_shows_the_key() -> None:
    one = root().leaf()
    shown = repr(leaf_of(one)) + str(leaf_of(one))
    assert "key" not in shown
    assert not any(line in shown for line in secret_lines(one.key_pem))


def test_refusal_of_a_damaged_key_shows_nothing_of_it() -> None:
    text = key_pem(new_key())
    damaged = text.replace("-----END EC", "-----END EX")
    with pytest.raises(LeafRejected) as caught:
        parse_leaf(minted(), damaged)
    shown = "".join(traceback.format_exception(caught.value))
    assert not any(line in shown for line in secret_lines(text))


@pytest.mark.parametrize(("number", "text"), [(0, "00"), (0x0D, "0d"), (0x1FF, "01:ff"), (0x80, "80")])
def test_serials_are_printed_as_consul_does(number: int, text: str) -> None:
    assert serial_text(number) == text
