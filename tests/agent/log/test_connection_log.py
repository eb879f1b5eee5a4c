"""The line about a connection: everything that is known, nothing that is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from agent.connections.records import Direction, Finished, Party
from agent.log.connection_log import fields
from agent.relay.splice import Ending
from certs.peer import Peer
from certs.spiffe import ServiceId, TrustDomain

START = datetime(2030, 1, 1, tzinfo=UTC)


def identity(datacenter: str, service: str) -> ServiceId:
    return ServiceId(trust_domain=TrustDomain("x.consul"), datacenter=datacenter, service=service)


def finished(**known: object) -> Finished:
    told: dict[str, object] = {
        "id": 7,
        "direction": Direction.INBOUND,
        "reason": Ending.CLEAN,
        "detail": "",
        "opened": True,
        "caller": "10.0.0.9:5",
        "upstream": "",
        "dialled": "127.0.0.1:8080",
        "since": START,
        "until": START + timedelta(seconds=1.5),
        "seconds": 1.5,
        "to_plain": 12,
        "to_tls": 0,
    }
    return Finished(**told | known)  # type: ignore[arg-type]  # a table of tests' own making


def test_both_ends_with_datacenters_serials_rule_bytes_and_reason() -> None:
    web = identity("dc1", "web")
    line = fields(
        finished(
            theirs=Peer(id=web, serial="0a:01", not_after=START, root="00"),
            ours=Party(id=identity("dc2", "db"), serial="0b:02"),
            rule="web => db (allow, precedence 9)",
            intention="f5a2",
            dialled="10.0.0.9:20000 (wan_tag, tunnel)",
            cipher="TLSv1.3 TLS_AES_128_GCM_SHA256",
            queue_seconds=0.00011,
            handshake_seconds=0.00223,
            connect_seconds=0.00036,
            first_byte_seconds=0.01,
        )
    )
    assert (
        line
        | {
            "reason": "clean",
            "peer": "spiffe://x.consul/ns/default/dc/dc1/svc/web",
            "peer_datacenter": "dc1",
            "peer_serial": "0a:01",
            "own": "spiffe://x.consul/ns/default/dc/dc2/svc/db",
            "own_datacenter": "dc2",
            "own_serial": "0b:02",
            "rule": "web => db (allow, precedence 9)",
            "to_plain": 12,
            "to_tls": None,
            "seconds": 1.5,
            "intention_id": "f5a2",
            "address": "10.0.0.9:20000",
            "why": "wan_tag, tunnel",
            "tls_version": "TLSv1.3",
            "cipher": "TLS_AES_128_GCM_SHA256",
            "queue_seconds": 0.0001,
            "handshake_seconds": 0.0022,
            "connect_seconds": 0.0004,
            "first_byte_seconds": 0.01,
        }
        == line
    )


def test_what_is_not_known_is_not_said() -> None:
    line = fields(finished(opened=False))
    assert {line[name] for name in ("peer_datacenter", "peer_serial", "own", "own_serial", "seconds")} == {
        None
    }
