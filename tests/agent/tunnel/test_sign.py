"""The sign of a tunnel in the SNI."""

from __future__ import annotations

import pytest

from agent.tunnel.sign import LABEL, is_marked, marked


@pytest.mark.parametrize(
    ("name", "service", "expected"),
    [
        (marked("db.default.dc2.internal.test").encode(), "db", True),
        (b"TUNNEL-V1.db.default.dc2.internal.test", "db", True),
        (b"db.default.dc2.internal.test", "db", False),
        (b"tunnel-v1", "db", False),
        (None, "db", False),
        (f"{LABEL}.default.dc2.internal.test".encode(), LABEL, False),  # a service of that name
    ],
)
def test_a_marked_name_is_that_of_a_tunnel(name: bytes | None, service: str, expected: bool) -> None:
    assert is_marked(name, service) is expected
