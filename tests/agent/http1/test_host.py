"""The name in a Host field, in one spelling."""

from __future__ import annotations

import pytest

from agent.http1.host import host_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("localhost", "localhost"),
        ("LocalHost.:19000", "localhost"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("[::1]:80", "::1"),
        ("[0:0:0:0:0:0:0:1]", "::1"),
        ("::1", "::1"),  # a local address, as the kernel tells it
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[::1", "::1"),
        ("2130706433", "2130706433"),  # no address, though some resolvers think so
        ("", ""),
        ("a@b:1", "a@b"),
    ],
)
def test_a_name_is_without_its_port(text: str, name: str) -> None:
    assert host_name(text) == name
