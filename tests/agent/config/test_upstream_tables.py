"""Upstreams in a settings file, with everything that can be wrong about them."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from agent.config.settings import Resolution, resolve
from agent.config.upstream_tables import read_tables
from upstreams.spec import LocalBind, MeshGatewayMode, ServiceDestination, parse_upstream_flag

WHOLE = """
[[upstreams]]
spec = "db@dc1:9191"
connect_timeout_ms = 250
mesh_gateway = "remote"
limits = { max_connections = 7 }
warm = 3

[[upstreams.failover]]
datacenter = "dc2"

[[upstreams]]
spec = "cache:9192"
"""


def mistakes(toml: str) -> list[str]:
    return read_tables(tomllib.loads(toml)["upstreams"])[1]


def test_tables() -> None:
    upstreams, wrong = read_tables(tomllib.loads(WHOLE)["upstreams"])
    assert wrong == []
    db, cache = upstreams
    assert (db.destination, db.bind) == (ServiceDestination("db", "dc1"), LocalBind("127.0.0.1", 9191))
    assert (db.connect_timeout, db.max_connections, db.warm) == (0.25, 7, 3)
    assert db.mesh_gateway is MeshGatewayMode.REMOTE
    assert db.failover == (ServiceDestination("db", "dc2"),)
    assert cache == parse_upstream_flag("cache:9192")


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("upstreams = 3", "upstreams: 3 is not a list of maps; ignored"),
        ('upstreams = ["db:1"]', "upstreams: ['db:1'] is not a list of maps; ignored"),
        ('[[upstreams]]\nspec = "db:1"\nwann = "auto"', "upstreams[0].wann: unknown key; did you mean wan?"),
        ("[[upstreams]]\nwan = 'auto'", "upstreams[0].spec: "),
        ('[[upstreams]]\nspec = "db:1"\nwarm = 99', "upstreams[0].warm: 99 is not a whole number from 0"),
        ('[[upstreams]]\nspec = "db:1"\nwan = "x"', "upstreams[0].wan: 'x' is not one of auto, prefer"),
        (
            '[[upstreams]]\nspec = "db:1"\n[[upstreams.failover]]\ndc = "dc2"',
            "upstreams[0].failover[0].dc: unknown key",
        ),
    ],
)
def test_every_mistake_says_where(toml: str, said: str) -> None:
    (text,) = mistakes(toml)
    assert text.startswith(said)


def resolved(directory: Path, toml: str, flags: dict[str, list[str]]) -> Resolution:
    path = directory / "sidecar.toml"
    path.write_text(toml)
    return resolve(flags, {}, str(path))


def test_in_a_file_they_join_the_short_ones(tmp_path: Path) -> None:
    settings = resolved(tmp_path, 'service = "web"\nupstream = ["x:1"]\n' + WHOLE, {}).settings
    assert settings is not None
    assert [str(upstream) for upstream in settings.upstream or ()] == [
        "x on 127.0.0.1:1",
        "db@dc1 on 127.0.0.1:9191",
        "cache on 127.0.0.1:9192",
    ]
    assert str(settings.origins["upstream"]) == f"file {tmp_path / 'sidecar.toml'}"


def test_a_flag_wins_over_the_file(tmp_path: Path) -> None:
    settings = resolved(tmp_path, 'service = "web"\n' + WHOLE, {"upstream": ["y:2"]}).settings
    assert settings is not None
    assert [str(upstream) for upstream in settings.upstream or ()] == ["y on 127.0.0.1:2"]


def test_their_mistakes_are_told_with_all_others(tmp_path: Path) -> None:
    toml = 'log_level = "loud"\n[[upstreams]]\nspec = "db:x"\n[[upstreams]]\nspec = "a:1"\n'
    said = [str(mistake) for mistake in resolved(tmp_path, toml, {"service": ["web"]}).mistakes]
    assert len(said) == 2
    assert any("upstreams[0].spec" in text for text in said)


def test_two_on_one_bind_are_a_mistake(tmp_path: Path) -> None:
    said = resolved(tmp_path, 'service = "web"\nupstream = ["x:9192"]\n' + WHOLE, {}).mistakes
    assert ["taken by another upstream" in str(mistake) for mistake in said] == [True]


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ({"limits": {"max_connection": 3}}, "max_connection"),
        ({"passive_health_check": {"max_failure": 3}}, "max_failure"),
        ({"mesh_gateway": {"mod": "local"}}, "mod"),
    ],
)
def test_an_unknown_key_of_an_inner_table_is_a_mistake(table: dict[str, object], key: str) -> None:
    _, mistakes = read_tables([{"spec": "db:9191", **table}])
    (inner,) = table
    assert len(mistakes) == 1
    assert mistakes[0].startswith(f"upstreams[0].{inner}.{key}: unknown key")
