"""The line of a connection, at its caller and its callee: who, by which rule, where to, how long."""

from __future__ import annotations

import pytest
import trio

from agent.log.connection_log import fields
from tests.support.policies import policy_of
from tests.support.two_sidecars import Mesh, mesh

ID = "f5a2b8cd-0000-4a5e-9d83-53be5e1ab1c4"
RULE = {"SourceName": "web", "DestinationName": "db", "Action": "allow", "ID": ID}


async def echo(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def call(m: Mesh) -> None:
    stream = await m.connect()
    await stream.send_all(b"hello")
    assert await stream.receive_some() == b"hello"
    await stream.aclose()
    await m.quiet()


def seconds_of(line: dict[str, str | int | float | None], *names: str) -> list[float]:
    """The times of these steps."""
    found = [line[f"{name}_seconds"] for name in names]
    assert all(isinstance(one, float) for one in found), found
    return [float(one or 0) for one in found]


@pytest.mark.parametrize("tunnel", [False, True])
async def test_both_ends_say_the_same_of_one_connection(tunnel: bool) -> None:
    async with mesh(echo, tunnel=tunnel) as m:
        m.policy.publish(policy_of([RULE], "db", default_allow=False))
        for _ in range(2):  # with tunnels the second call finds one that is ready
            await call(m)
        caller, callee = (fields(side.ledger.recent()[-1]) for side in (m.web, m.db))
    assert (caller["direction"], callee["direction"]) == ("outbound", "inbound")
    assert (caller["peer"], caller["own"]) == (callee["own"], callee["peer"])
    assert (callee["peer_datacenter"], callee["own_datacenter"]) == ("dc1", "dc2")
    assert (callee["rule"], callee["intention_id"]) == ("web => db (allow, precedence 9)", ID)
    assert caller["address"] == str(m.public)
    assert str(caller["why"]).endswith("tunnel") is tunnel
    assert callee["address"] == str(m.app.address)
    for line in (caller, callee):
        assert line["tls_version"] == "TLSv1.3"
        assert str(line["cipher"]).startswith("TLS_")
        assert (line["to_plain"], line["to_tls"]) == (5, 5)
        (first_byte,) = seconds_of(line, "first_byte")
        assert first_byte > 0
        if not tunnel:
            handshake, connect = seconds_of(line, "handshake", "connect")
            assert handshake > 0
            assert connect >= 0
