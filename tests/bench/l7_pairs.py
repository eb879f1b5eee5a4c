"""Our own contestant at L7: each request is parsed and judged by an intention's permissions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tests.bench.pairs import Pair, Sidecars, sidecars
from tests.bench.rig import api, ask
from upstreams.answers import TUNNEL_KEY

L7 = Sidecars(
    name="sidecar-l7", service="db-l7", public=21010, upstream=9110, admin=19010, config={"protocol": "http"}
)
TWO = Sidecars(
    name="sidecar-l7 x2",
    service="db-l7-x2",
    public=21015,
    upstream=9115,
    admin=19015,
    config={"protocol": "http"},
    flags=("-workers", "2"),
)
TUNNEL = Sidecars(
    name="sidecar-l7-tunnel",
    service="db-l7-tunnel",
    public=21018,
    upstream=9118,
    admin=19018,
    config={"protocol": "http", TUNNEL_KEY: True},
    flags=("-tunnel", "auto"),
)
PERMISSIONS = [  # everything but `/forbidden…`, by GET or POST, unless a header says otherwise
    {"Action": "deny", "HTTP": {"PathPrefix": "/forbidden"}},
    {"Action": "deny", "HTTP": {"PathPrefix": "/", "Header": [{"Name": "x-forbidden", "Present": True}]}},
    {"Action": "allow", "HTTP": {"PathPrefix": "/", "Methods": ["GET", "POST"]}},
]


@contextlib.contextmanager
def sidecar_l7(directory: Path) -> Iterator[Pair]:
    """The server half judges each request."""
    with _judging(directory, L7) as pair:
        yield pair


@contextlib.contextmanager
def two_workers_l7(directory: Path) -> Iterator[Pair]:
    """The same with two processes a half."""
    with _judging(directory, TWO) as pair:
        yield pair


@contextlib.contextmanager
def tunnel_l7(directory: Path) -> Iterator[Pair]:
    """The same with all connections in one TLS connection."""
    with _judging(directory, TUNNEL) as pair:
        yield pair


@contextlib.contextmanager
def _judging(directory: Path, which: Sidecars) -> Iterator[Pair]:
    defaults = {"Kind": "service-defaults", "Name": which.service, "Protocol": "http"}
    ask("PUT", f"{api('dc1')}/v1/config", defaults)
    rule = f"{api('dc1')}/v1/connect/intentions/exact?source=web&destination={which.service}"
    ask("PUT", rule, {"Permissions": PERMISSIONS})
    with sidecars(directory, which) as pair:
        yield replace(pair, judges_requests=True)
