"""Settings: precedence, origins, and every mistake at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import pytest

from agent.base.address import TcpAddress, UnixAddress
from agent.config.options import BY_NAME, OPTIONS
from agent.config.parsers import ConsulAddress
from agent.config.settings import IdentityKind, Origin, Rank, Resolution, Settings, resolve
from upstreams.spec import parse_upstream_flag

SECRET = "8f2c6a52-secret"


def settings(
    flags: Mapping[str, Sequence[str]], environ: Mapping[str, str] | None = None, config: str | None = None
) -> Settings:
    resolution = resolve(flags, environ or {}, config)
    assert resolution.mistakes == ()
    assert resolution.settings is not None
    return resolution.settings


def mistakes(resolution: Resolution) -> list[str]:
    assert resolution.settings is None
    return [str(mistake) for mistake in resolution.mistakes]


def toml(tmp_path: Path, text: str) -> str:
    path = tmp_path / "web.toml"
    path.write_text(text)
    return str(path)


def test_every_option_is_a_field() -> None:
    assert {field.name for field in fields(Settings)} == {*BY_NAME, "identity", "origins"}


def test_defaults() -> None:
    told = settings({"sidecar-for": ["web"]})
    assert told.http_addr == ConsulAddress(host="127.0.0.1", port=8500)
    assert told.admin_bind == (TcpAddress("127.0.0.1", 19000),)
    assert (told.drain_seconds, told.start_timeout, told.http_ssl_verify) == (30.0, 60.0, True)
    assert told.identity is IdentityKind.SIDECAR_FOR
    assert told.upstream is None


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = toml(tmp_path, 'sidecar_for = "web"\nlog_level = "warn"\nlog_format = "json"\ndrain_seconds = 5\n')
    environ = {"SIDECAR_LOG_LEVEL": "error", "SIDECAR_LOG_FORMAT": "text", "CONSUL_HTTP_ADDR": "consul:8500"}
    told = settings({"log-level": ["debug"]}, environ, file)
    assert (told.log_level, told.log_format, told.drain_seconds) == ("debug", "text", 5.0)
    assert {
        name: str(told.origins[name]) for name in ("log_level", "log_format", "drain_seconds", "token")
    } == {
        "log_level": "flag -log-level",
        "log_format": "environment SIDECAR_LOG_FORMAT",
        "drain_seconds": f"file {file}",
        "token": "default",
    }
    assert str(told.origins["http_addr"]) == "environment CONSUL_HTTP_ADDR"


def test_consuls_own_variables_have_consuls_names() -> None:
    names = {option.name: option.variable for option in OPTIONS}
    assert names["sidecar_for"] == "CONNECT_SIDECAR_FOR"
    assert names["proxy_id"] == "CONNECT_PROXY_ID"
    assert names["ca_file"] == "CONSUL_CACERT"
    assert names["admin_bind"] == "SIDECAR_ADMIN_BIND"


def test_the_strongest_origin_says_whom_to_run_beside() -> None:
    told = settings({"proxy-id": ["web-proxy"]}, {"CONNECT_SIDECAR_FOR": "db"})
    assert told.identity is IdentityKind.PROXY_ID
    assert told.sidecar_for is None


def test_two_of_one_origin_exclude_each_other() -> None:
    assert mistakes(resolve({"proxy-id": ["a"], "sidecar-for": ["b"]}, {})) == [
        "-sidecar-for and -proxy-id exclude each other; give one of them"
    ]
    assert mistakes(resolve({}, {"CONNECT_PROXY_ID": "a", "CONNECT_SIDECAR_FOR": "b"})) == [
        "environment CONNECT_SIDECAR_FOR: -sidecar-for and -proxy-id exclude each other; give one of them"
    ]


def test_nobody_to_run_beside() -> None:
    assert mistakes(resolve({}, {})) == [
        "say whom to run beside: -sidecar-for ID, -proxy-id ID or -service NAME"
    ]
    assert resolve({}, {}, identity_required=False).mistakes == ()


def test_without_a_registration() -> None:
    flags = {
        "service": ["web"],
        "listen": ["10.0.0.1:21000"],
        "service-addr": ["unix:/run/web.sock"],
        "upstream": ["db@dc2:9191", "prepared_query:near:127.0.0.2:9192"],
        "register": ["true"],
    }
    told = settings(flags)
    assert told.listen == TcpAddress("10.0.0.1", 21000)
    assert told.service_addr == UnixAddress("/run/web.sock")
    assert told.upstream == tuple(map(parse_upstream_flag, flags["upstream"]))
    assert told.register


def test_every_mistake_at_once(tmp_path: Path) -> None:
    file = toml(
        tmp_path,
        'sidcar_for = "web"\nlog_level = ["a"]\nupstream = "db:1:2:3"\n'
        'admin_bind = [1]\nlog_format = "xml"\n',
    )
    environ = {
        "CONSUL_HTTP_SSL_VERIFY": "maybe",
        "CONSUL_HTTP_TOKEN_FILE": "/nowhere/token",
        "CONSUL_HTTP_TOKEN": "s3cret\ns3cret",
    }
    flags = {"listen": ["21000"], "client-cert": ["/nowhere/cert"], "service": ["web"]}
    said = mistakes(resolve(flags, environ, file))
    for part in (
        f"file {file}, line 1: unknown key 'sidcar_for'; did you mean sidecar_for?",
        f"file {file}, line 2: log_level: must be a string, a number or a boolean",
        f"file {file}, line 4: admin_bind: must be a list of strings",
        f"file {file}, line 5: log_format: 'xml' is not one of text, json, journald",
        "environment CONSUL_HTTP_SSL_VERIFY: 'maybe' is neither true nor false",
        "environment CONSUL_HTTP_TOKEN_FILE: there is no file /nowhere/token",
        "environment CONSUL_HTTP_TOKEN: it has more than one line",
        "flag -listen: '21000': write ADDR:PORT",
        "flag -client-cert: there is no file /nowhere/cert",
    ):
        assert part in said
    assert any("upstream" in text for text in said)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({"service": ["a"], "listen": ["a:1"]}, "flag -listen: with -service it needs -service-addr as well"),
        (
            {"service": ["a"], "service-addr": ["a:1"]},
            "flag -service-addr: with -service it needs -listen as well",
        ),
        ({"sidecar-for": ["a"], "register": ["true"]}, "flag -register: only with -service"),
        ({"service": ["a"], "register": ["true"]}, "flag -register: needs -listen and -service-addr"),
        ({"service": ["a"], "register-id": ["x"]}, "flag -register-id: only with -register"),
        (
            {"service": ["a"], "audit": ["true"], "strict": ["true"]},
            "flag -audit: excludes strict: in production what is denied is not let through",
        ),
        ({"service": ["a"], "narrow": ["web"]}, "flag -narrow: 'web': write SOURCE@DC,DC"),
        ({"service": ["a"], "proxy-protocol": ["v1"]}, "flag -proxy-protocol: 'v1' is not one of off, v2"),
        (
            {"service": ["a"], "upstream": ["b:1", "c:1"]},
            "flag -upstream: 127.0.0.1:1 is taken by another upstream",
        ),
        (
            {"service": ["a"], "upstream": ["b:1", "c:localhost:1"]},
            "flag -upstream: upstream c on localhost:1: duplicate_bind: upstream b is there (127.0.0.1:1)",
        ),
        (
            {"service": ["a"], "upstream": ["b:19000"]},
            "flag -upstream: upstream b on 127.0.0.1:19000: duplicate_bind: the admin endpoint is there",
        ),
        (
            {"service": ["a"], "listen": ["0.0.0.0:80"], "service-addr": ["127.1:80"]},
            "flag -listen: the public listener on 0.0.0.0:80: bind_of_the_app: the app is there (127.1:80)",
        ),
        (
            {"service": ["a"], "listen": ["0.0.0.0:80"], "service-addr": ["127.0.0.1:19000"]},
            "default: the admin endpoint on 127.0.0.1:19000: bind_of_the_app",
        ),
        (
            {"sidecar-for": ["a"], "upstream": ["b:[::1]:80"], "service-addr": ["localhost:80"]},
            "flag -upstream: upstream b on [::1]:80: bind_of_the_app",
        ),
    ],
)
def test_what_does_not_go_together(flags: dict[str, list[str]], text: str) -> None:
    assert any(said.startswith(text) for said in mistakes(resolve(flags, {})))


def test_an_app_on_loopback_may_have_the_port_of_a_public_listener_outside() -> None:
    """Only Consul's check of that port is lost by it, where that probes loopback."""
    flags = {"service": ["a"], "listen": ["10.0.0.5:80"], "service-addr": ["127.0.0.1:80"]}
    assert resolve(flags, {}).mistakes == ()


def test_a_certificate_needs_its_key(tmp_path: Path) -> None:
    (tmp_path / "cert").write_text("")
    said = mistakes(resolve({"sidecar-for": ["a"], "client-cert": [str(tmp_path / "cert")]}, {}))
    assert said == ["flag -client-cert: it needs -client-key as well"]


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"a = [", "not TOML"), (b"\xff", "not TOML"), (None, "cannot be read: No such file")],
)
def test_a_file_that_is_no_file_of_settings(tmp_path: Path, content: bytes | None, text: str) -> None:
    path = tmp_path / "web.toml"
    if content is not None:
        path.write_bytes(content)
    (said,) = mistakes(resolve({"sidecar-for": ["a"]}, {}, str(path)))
    assert said.startswith(f"file {path}: {text}")


def test_toml_types(tmp_path: Path) -> None:
    file = toml(
        tmp_path,
        'service = "web"\nlisten = "a:1"\nservice_addr = "b:2"\nregister = true\nupstream = ["db:1"]\n'
        "start_timeout = 1.5\nmax_connections = 100\nadmin_bind = []\n",
    )
    told = settings({}, {}, file)
    assert told.register is True
    assert (told.start_timeout, told.max_connections, told.admin_bind) == (1.5, 100, ())


def test_ssl_makes_https_of_an_address_without_scheme() -> None:
    told = settings({"sidecar-for": ["a"]}, {"CONSUL_HTTP_SSL": "true", "CONSUL_HTTP_ADDR": "consul:8501"})
    assert told.http_addr == ConsulAddress(host="consul", port=8501, tls=True)
    told = settings({"sidecar-for": ["a"]}, {"CONSUL_HTTP_SSL": "1", "CONSUL_HTTP_ADDR": "unix:///s"})
    assert told.http_addr == ConsulAddress(socket="/s")


def test_empty_variables_are_unset() -> None:
    assert settings({"sidecar-for": ["a"]}, {"CONSUL_HTTP_TOKEN": ""}).token is None


def test_variables_with_several_values_are_words() -> None:
    told = settings({"sidecar-for": ["a"]}, {"SIDECAR_ADMIN_BIND": "unix:/s 127.0.0.1:1"})
    assert told.admin_bind == (UnixAddress("/s"), TcpAddress("127.0.0.1", 1))


def test_a_variable_that_looks_like_ours_is_a_note() -> None:
    resolution = resolve({"sidecar-for": ["a"]}, {"SIDECAR_ADMIN_BNID": "x", "SIDECAR_X": "y"})
    assert resolution.settings is not None
    assert (
        resolution.notes
        == (
            "environment SIDECAR_ADMIN_BNID is not one of our variables; did you mean SIDECAR_ADMIN_BIND?",
            "environment SIDECAR_PORT is not one of our variables",
        )
        or len(resolution.notes) == 2
    )


def test_secrets_are_not_printed() -> None:
    told = settings({"sidecar-for": ["a"], "token": [SECRET], "http-auth": [f"u:{SECRET}"]})
    assert SECRET not in repr(told)
    rows = {name: (value, origin) for name, value, origin in told.effective()}
    assert rows["token"] == ("(set, not shown)", Origin(Rank.FLAG, "-token"))
    assert SECRET not in str(rows)


def test_effective_prints_what_a_person_reads() -> None:
    told = settings({"service": ["a"], "upstream": ["db@dc2:9191", "x:unix:/s"], "drain-seconds": ["1m"]})
    rows = {name: value for name, value, _ in told.effective()}
    assert rows["upstream"] == "db@dc2 on 127.0.0.1:9191, x on unix:/s"
    assert rows["drain_seconds"] == "60"
    assert rows["register"] == "false"
    assert "listen" not in rows
