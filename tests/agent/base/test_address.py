"""Addresses: how they are written, and which are this machine's."""

from __future__ import annotations

import pytest

from agent.base.address import is_local, literal


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("fe80::1%lo", "fe80::1"),
        ("localhost", None),
        ("db.example", None),
        ("1.2.3.4 x", None),
        ("", None),
        ("ü.example", None),
    ],
)
def test_an_address_or_a_name(host: str, address: str | None) -> None:
    assert literal(host) == address


@pytest.mark.parametrize(
    ("address", "ours"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("0.0.0.0", True),
        ("192.0.2.1", False),
        ("2001:db8::1", False),
    ],
)
def test_an_address_of_this_machine(address: str, ours: bool) -> None:
    assert is_local(address) is ours
