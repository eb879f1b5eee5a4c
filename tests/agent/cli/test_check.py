"""`sidecar check`: all mistakes, or what is in force and why."""

from __future__ import annotations

import io
import socket
from pathlib import Path

import pytest
import trio

from agent.cli.check import main
from agent.cli.console import Console


def check(*words: str, **environ: str) -> tuple[int, str, str]:
    console = Console(words=words, environ=environ, out=io.StringIO(), err=io.StringIO())
    code = main("check", console)
    assert isinstance(console.out, io.StringIO)
    assert isinstance(console.err, io.StringIO)
    return code, console.out.getvalue(), console.err.getvalue()


def test_effective_settings_with_their_origins(tmp_path: Path) -> None:
    file = tmp_path / "web.toml"
    file.write_text('service = "web"\nupstream = ["db@dc2:9191"]\n')
    code, out, err = check(str(file), CONSUL_HTTP_ADDR="consul:8500", CONSUL_HTTP_TOKEN="s3cret")
    assert (code, err) == (0, "")
    rows = {line.partition(" = ")[0]: line for line in out.splitlines()}
    assert rows["upstream"].endswith(f"# file {file}")
    assert rows["http_addr"].startswith("http_addr = http://consul:8500 ")
    assert rows["http_addr"].endswith("# environment CONSUL_HTTP_ADDR")
    assert rows["drain_seconds"].endswith("# default")
    assert "s3cret" not in out


def test_every_limit_of_an_upstream_is_shown_with_its_origin(tmp_path: Path) -> None:
    file = tmp_path / "web.toml"
    file.write_text(
        'service = "web"\nwan_addresses = "prefer"\n'
        '[[upstreams]]\nspec = "db@dc2:9191"\nwarm = 2\nlimits = { max_connections = 9 }\n'
        '[[upstreams]]\nspec = "prepared_query:near:9192"\n'
    )
    code, out, err = check(str(file))
    assert (code, err) == (0, "")
    _, first, second = out.split("\n\nupstream ")
    for block, name in (
        (first, "db@dc2 on 127.0.0.1:9191"),
        (second, "prepared_query:near on 127.0.0.1:9192"),
    ):
        assert block.startswith(f"{name}\n")
    shown = {line.partition(" = ")[0]: line.partition(" = ")[2] for line in first.splitlines()}
    for key, text in (("warm", "2"), ("limits.max_connections", "9")):
        assert shown[key].split("  ")[0] == text
        assert shown[key].endswith(f"# file {file}")
    assert shown["wan"].startswith("prefer ")
    assert shown["connect_timeout_ms"].startswith("5000 ")
    assert all(shown[key].endswith("# default") for key in ("wan", "connect_timeout_ms", "failover"))
    assert "poll_interval = 30s, or the query's TTL (10s to 60s)" in second


def test_listeners_that_meet_are_a_mistake_whatever_their_paths_and_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def getaddrinfo(*_: object, **__: object) -> list[object]:
        await trio.lowlevel.checkpoint()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    (tmp_path / "link").symlink_to(tmp_path)
    file = tmp_path / "web.toml"
    file.write_text(
        f'service_addr = "unix:{tmp_path}/app.sock"\n'
        f'[[upstreams]]\nspec = "db:unix:{tmp_path}/link/app.sock"\n'
        '[[upstreams]]\nspec = "api:web.example:19000"\n'
        '[[upstreams]]\nspec = "fine:9191"\n'
    )
    code, out, err = check(str(file))
    assert (code, out) == (78, "")
    first, second = err.splitlines()
    assert first.startswith(f"sidecar: upstream db on unix:{tmp_path}/link/app.sock: bind_of_the_app: ")
    assert second.startswith("sidecar: upstream api on web.example:19000: duplicate_bind: the admin endpoint")


def test_every_mistake_at_once() -> None:
    code, out, err = check("-nonsense", "-log-level", "loud", CONSUL_HTTP_SSL_VERIFY="perhaps")
    assert (code, out) == (78, "")
    assert err.splitlines() == [
        "sidecar: 3 settings are wrong",
        "  unknown flag -nonsense",
        "  environment CONSUL_HTTP_SSL_VERIFY: 'perhaps' is neither true nor false",
        "  flag -log-level: 'loud' is not one of debug, info, warn, error",
    ]


def test_one_mistake_has_no_heading() -> None:
    assert check("-log-level", "loud")[2].startswith("sidecar: flag -log-level: ")


def test_whom_to_run_beside_may_be_missing() -> None:
    assert check()[0] == 0


def test_a_note_is_no_mistake() -> None:
    code, _, err = check(SIDECAR_TOKEN="x")
    assert code == 0
    assert err.startswith("sidecar: note: environment SIDECAR_TOKEN is not one of our variables")


def test_help() -> None:
    code, out, _ = check("-help")
    assert code == 0
    assert out.startswith("usage: sidecar check [FLAGS] [FILE]")


def test_a_deny_file_is_read_as_well(tmp_path: Path) -> None:
    denied = tmp_path / "denied"
    denied.write_text("nonsense\n")
    code, out, err = check("-deny-file", str(denied))
    assert (code, out) == (78, "")
    assert "deny_file:" in err
    denied.write_text("# nobody\n")
    assert check("-deny-file", str(denied), "-narrow", "web@dc1,dc3")[0] == 0


def test_an_empty_file_is_refused_and_the_sample_of_comments_is_not(tmp_path: Path) -> None:
    file = tmp_path / "web.toml"
    file.write_text(" \n")
    code, out, err = check(str(file))
    assert (code, out, err) == (78, "", f"sidecar: file {file}: the file is empty\n")
    file.write_text("# service = 'web'\n")
    code, _, err = check(str(file))
    assert code == 0
    assert "no service is named: `run` needs -sidecar-for ID" in err


def test_mistakes_carry_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "web.toml"
    file.write_text(
        'sidecar_for = "web"\nupstream = ["preparedquery:db:9191"]\n"log_level" = "loud"\ndrain_secs = 3\n'
        'listen = "127.0.0.1:9192"\n\n[[upstreams]]\nspec = "db:9192"\n'
        '[[upstreams]]\nfoo = 1\nspec = "db:9193"\n[[upstreams.failover]]\ndatacentre = "dc2"\n'
    )
    code, _, err = check(str(file))
    assert code == 78
    found = {
        line.split(", line ")[1].partition(":")[0]: line for line in err.splitlines() if ", line " in line
    }
    assert set(found) == {"2", "3", "4", "10", "13"}
    assert "a prepared query begins with prepared_query:" in found["2"]
    assert "drain_seconds" in found["4"]


def test_an_admin_endpoint_that_the_network_reaches_is_a_note() -> None:
    code, _, err = check("-sidecar-for", "web", "-admin-bind", "0.0.0.0:19000", "-admin-bind", "127.0.0.1:1")
    assert code == 0
    (line,) = err.splitlines()
    assert line.startswith("sidecar: note: flag -admin-bind: 0.0.0.0:19000 can be reached from the network")


def test_a_public_listener_at_an_upstream_s_bind_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "web.toml"
    file.write_text(
        'service = "web"\nlisten = "127.0.0.1:9191"\nservice_addr = "127.0.0.1:8080"\n'
        'upstream = ["db:9191"]\n'
    )
    code, out, err = check(str(file))
    assert (code, out) == (78, "")
    where = f"sidecar: file {file}, line 4: upstream db on 127.0.0.1:9191: duplicate_bind: "
    assert err.startswith(f"{where}the public listener is there (127.0.0.1:9191)")
