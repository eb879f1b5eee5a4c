"""A data directory that is valid JSON and yet damaged: refused in one line, or a start that works."""

from __future__ import annotations

import copy
import json
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given
from hypothesis import settings as bounded
from hypothesis import strategies as st

from datacenter.assembly import assembled
from datacenter.data_directory import require_readable
from datacenter.http.frame import Answers, RawRequest
from datacenter.services.agent_self import require_own_store
from datacenter.state.database import StoreUnavailable
from datacenter.state.store import Store
from tests.datacenter.world import settings

GONE = object()
REPLACEMENTS: tuple[object, ...] = (
    GONE,
    None,
    "x",
    "",
    7,
    -1,
    10**30,
    10**60,
    1.5,
    True,
    [],
    ["x"],
    {},
    {"x": "y"},
)
SHOWN = (
    *("/v1/agent/services", "/v1/agent/checks", "/v1/agent/connect/ca/roots", "/v1/connect/intentions"),
    *("/v1/health/service/web", "/v1/health/connect/web", "/v1/catalog/nodes", "/v1/catalog/services"),
    *("/v1/query", "/v1/query/q/execute", "/v1/connect/ca/configuration", "/v1/config/service-defaults"),
    *("/v1/agent/connect/ca/leaf/web", "/v1/agent/service/web-sidecar-proxy", "/v1/agent/self"),
    "/v1/connect/intentions/match?by=destination&name=db",
    "/v1/agent/health/service/name/web",
)
CHECKS = [
    {"CheckID": "ttl", "TTL": "1h"},
    {"CheckID": "tcp", "TCP": "127.0.0.1:1", "Interval": "1h"},
    {"CheckID": "alias", "AliasService": "web"},
]
UPSTREAM = {"DestinationName": "db", "LocalBindPort": 1, "Config": {"a": 1}}
WEB = {
    "Name": "web",
    "Port": 1,
    "Checks": CHECKS,
    "Tags": ["a"],
    "Meta": {"v": "1"},
    "Connect": {"SidecarService": {"Proxy": {"Config": {"a": 1}, "Upstreams": [UPSTREAM]}}},
}
WRITTEN: tuple[tuple[str, str, object], ...] = (
    ("PUT", "/v1/agent/service/register", WEB),
    (
        "PUT",
        "/v1/config",
        {"Kind": "service-intentions", "Name": "db", "Sources": [{"Name": "web", "Action": "allow"}]},
    ),
    ("PUT", "/v1/config", {"Kind": "service-defaults", "Name": "db", "Protocol": "http"}),
    ("PUT", "/v1/config", {"Kind": "proxy-defaults", "Name": "global", "Config": {"protocol": "http"}}),
    ("POST", "/v1/query", {"Name": "q", "Service": {"Service": "web"}}),
    ("PUT", "/v1/connect/ca/rotate", {}),
)
Place = tuple[str, str, tuple[str | int, ...]]  # table, key, and the way to a value


async def _ask(frame: Answers, method: str, target: str, body: object = None) -> int:
    path, _, query = target.partition("?")
    raw = RawRequest(
        method=method, path=path, query=query, body=b"" if body is None else json.dumps(body).encode()
    )
    return (await frame.handle(raw)).status


async def _started(path: Path, *, fill: bool = False) -> None:
    """Start as the process does, and ask for all that is kept; an exception is a traceback there."""
    own, store = settings("dc1", data_dir=path.parent), Store(path)
    try:
        require_readable(path, store)
        require_own_store(own, store)
        async with assembled(own, store, clock=lambda: datetime.now(UTC), rng=random.Random(1)) as alive:
            for method, target, body in WRITTEN if fill else ():
                assert await _ask(alive.frame, method, target, body) == 200
            for target in SHOWN:
                await _ask(alive.frame, "GET", target)
            await trio.testing.wait_all_tasks_blocked()
    finally:
        store.close()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "datacenter.db"
    trio.run(lambda: _started(path, fill=True))
    return path


def _documents(path: Path) -> Iterator[tuple[str, str, Any]]:
    with closing(sqlite3.connect(path)) as connection:
        for bucket, key, text in connection.execute("SELECT bucket, key, value FROM documents"):
            yield bucket, key, json.loads(text)
        for key, text in connection.execute("SELECT key, value FROM private"):
            yield "private", key, json.loads(text)


def _ways(value: Any) -> Iterator[tuple[str | int, ...]]:
    yield ()
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        for way in _ways(each):
            yield (key, *way)


def _places(path: Path) -> list[Place]:
    return [(table, key, way) for table, key, value in _documents(path) for way in _ways(value)]


def _changed(value: Any, way: tuple[str | int, ...], new: object) -> Any:
    if not way:
        return new
    value = copy.deepcopy(value)
    inner = value
    for step in way[:-1]:
        inner = inner[step]
    if new is GONE:
        del inner[way[-1]]
    else:
        inner[way[-1]] = new
    return value


def _damage(path: Path, place: Place, new: object) -> None:
    table, key, way = place
    (before,) = (value for bucket, name, value in _documents(path) if (bucket, name) == (table, key))
    if table == "private":
        change, delete = "UPDATE private SET value = ? WHERE key = ?", "DELETE FROM private WHERE key = ?"
        names: tuple[str, ...] = (key,)
    else:
        change = "UPDATE documents SET value = ? WHERE bucket = ? AND key = ?"
        delete, names = "DELETE FROM documents WHERE bucket = ? AND key = ?", (table, key)
    with closing(sqlite3.connect(path)) as connection, connection:
        if new is GONE and not way:
            connection.execute(delete, names)
        else:
            connection.execute(change, (json.dumps(_changed(before, way, new)), *names))


def _refused(path: Path) -> str:
    """The line of a refusal; "" of a start that works."""
    try:
        trio.run(_started, path)
    except StoreUnavailable as error:
        text = str(error)
        remedy = (
            "a data-dir of its own" if " is of datacenter " in text else "put back a copy of it, or move it"
        )
        assert text.startswith(str(path.parent))
        assert remedy in text
        assert "\n" not in text
        return text
    return ""


@bounded(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_replaced_or_deleted_is_one_line_or_a_start_that_works(
    real: Path, tmp_path: Path, data: st.DataObject
) -> None:
    place = data.draw(st.sampled_from(_places(real)))
    path = tmp_path / "datacenter.db"
    shutil.copy(real, path)
    _damage(path, place, data.draw(st.sampled_from(REPLACEMENTS)))
    _refused(path)


def test_an_undamaged_one_starts(real: Path, tmp_path: Path) -> None:
    shutil.copy(real, tmp_path / "datacenter.db")
    assert _refused(tmp_path / "datacenter.db") == ""


NAMED: list[tuple[Place, object, str]] = [
    (("services", "dc1-node/web", ("Port",)), GONE, "services 'dc1-node/web': Port is missing"),
    (("services", "dc1-node/web", ("Port",)), "80", "Port is a text, not a whole number"),
    (
        ("services", "dc1-node/web-sidecar-proxy", ("Proxy", "Upstreams", 0, "DestinationName")),
        None,
        "Proxy.Upstreams[0].DestinationName is null, not a text",
    ),
    (("check_definitions", "ttl", ("Kind",)), "ssh", "Kind is 'ssh', none of alias, http, tcp, ttl"),
    (("check_definitions", "ttl", ("TTL",)), -1, "TTL is -1, no number of seconds"),
    (("nodes", "dc1-node", ()), GONE, "Node 'dc1-node' is not among the nodes"),
    (("nodes", "dc1-node", ("Node",)), "x", "nodes 'dc1-node': its fields are those of 'x'"),
    (("connect-ca-config", "config", ("Config", "LeafCertTTL")), "x", "'config': Config: "),
    (("config_entries", "service-intentions/db", ("Sources",)), GONE, "Sources is missing"),
    (("config_entries", "service-intentions/db", ("Sources", 0, "Name")), "", "a Name is empty"),
    (("connect-ca-serial", "last", ("Serial",)), -1, "Serial is -1, less than 0"),
    (("connect-ca-serial", "last", ("Serial",)), 10**60, "Serial is a number of more than 20 octets"),
    (
        ("private", "connect-ca-signer", ()),
        GONE,
        "'connect-ca-signer' is missing, the key",
    ),
    (("private", "connect-ca-signer", ("PrivateKey",)), "x", "the private key is not an unencrypted PEM key"),
    (("agent", "node", ()), [], "agent 'node': the document is a list, not an object"),
]


@pytest.mark.parametrize(("place", "new", "named"), NAMED, ids=[named for _, _, named in NAMED])
def test_the_document_and_its_field_are_named(
    real: Path, tmp_path: Path, place: Place, new: object, named: str
) -> None:
    path = tmp_path / "datacenter.db"
    shutil.copy(real, path)
    _damage(path, place, new)
    assert named in _refused(path)
