"""By which names a datacenter may be asked."""

from __future__ import annotations

import pytest

from datacenter.http.hosts import host_of, own_hosts
from tests.datacenter.world import settings


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("LocalHost.:8500", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("[0:0::1]:8500", "::1"),
        ("::1", "::1"),
        ("[::ffff:10.0.0.1]:1", "10.0.0.1"),
        ("", ""),
    ],
)
def test_a_host_without_its_port(text: str, host: str) -> None:
    assert host_of(text) == host


def test_the_names_are_of_the_settings() -> None:
    given = settings(
        "dc1",
        http_hosts=("Consul.Internal",),
        advertise_addr="https://dc1.example:8501",
        node_address="10.0.0.5",
        node_wan_address="",
    )
    expected = {"localhost", "127.0.0.1", "::1", "consul.internal", "dc1.example", "10.0.0.5"}
    assert own_hosts(given) == expected
