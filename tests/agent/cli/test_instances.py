"""Which agents of this machine a command finds without being told where."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from agent.base.address import Address, TcpAddress, UnixAddress
from agent.base.exits import Exit, ExitCode
from agent.cli import instances as found
from agent.cli.instances import beside, instances, named, only, read_beside
from agent.config.load import RUN_FLAGS
from agent.config.settings import Resolution, Settings, resolve

NOBODY = 65534
DEFAULT = TcpAddress("127.0.0.1", 19000)


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in the place of /run/connect-sidecar."""
    monkeypatch.setattr(found, "RUNTIME", tmp_path / "run")
    return tmp_path / "run"


def run_instance(runtime: Path, name: str) -> Path:
    """Make the admin socket of an instance."""
    directory = runtime / name
    directory.mkdir(parents=True)
    path = directory / "admin.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    return path


@contextmanager
def another_user() -> Iterator[None]:
    """Be another user for a while, where root can."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def settings_of(file: Path, more: str = "") -> Settings:
    file.parent.mkdir(exist_ok=True)
    file.write_text(f'sidecar_for = "web"\n{more}')
    settings = resolve({}, {}, str(file)).settings
    assert settings is not None
    return settings


def test_without_an_instance_it_is_the_default(runtime: Path) -> None:
    assert instances() == []
    assert only(instances()) == DEFAULT


def test_a_directory_without_a_socket_is_no_instance(runtime: Path) -> None:
    (runtime / "stopped").mkdir(parents=True)
    path = run_instance(runtime, "web")
    assert [instance.name for instance in instances()] == ["web"]
    assert only(instances()) == UnixAddress(str(path))


def test_of_several_one_is_named(runtime: Path) -> None:
    run_instance(runtime, "web")
    path = run_instance(runtime, "db")
    assert named("db").address == UnixAddress(str(path))
    with pytest.raises(Exit, match=r"several instances run here, say which: db, web$") as several:
        only(instances())
    assert several.value.code is ExitCode.USAGE
    with pytest.raises(Exit, match=r"no instance 'dd' below .*; there is db, web$") as wrong:
        named("dd")
    assert wrong.value.code is ExitCode.UNAVAILABLE


@pytest.mark.parametrize("closed", ["directory", "socket"])
def test_what_is_not_open_to_this_user_is_said_with_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    runtime = Path("/tmp") / f"instances-{os.getpid()}"  # tmp_path is closed to other users as a whole
    monkeypatch.setattr(found, "RUNTIME", runtime)
    path = run_instance(runtime, "web")
    shut = path if closed == "socket" else path.parent
    shut.chmod(0)
    try:
        with another_user():
            (instance,) = instances()
            with pytest.raises(Exit, match=rf"^{shut} is not open to this user: ") as refused:
                named("web").address  # noqa: B018 - it raises
    finally:
        path.parent.chmod(0o700)
        path.unlink()
        path.parent.rmdir()
        runtime.rmdir()
    assert instance.name == "web"
    assert refused.value.code is ExitCode.PERMISSION


def test_settings_of_an_instance_name_its_agent(
    runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(found, "SETTINGS", tmp_path / "etc")
    web, _ = run_instance(runtime, "web"), run_instance(runtime, "db")
    assert beside(settings_of(tmp_path / "etc/web.toml")) == UnixAddress(str(web))
    assert beside(settings_of(tmp_path / "etc/off.toml")) == DEFAULT
    told = settings_of(tmp_path / "etc/db.toml", 'admin_bind = ["127.0.0.1:1"]\n')
    assert beside(told) == TcpAddress("127.0.0.1", 1)
    with pytest.raises(Exit, match="say which"):
        beside(settings_of(tmp_path / "elsewhere/web.toml"))


def status(**given: str) -> dict[str, Any]:
    """A `/status` as far as a command reads settings from it."""
    rows = {"http_addr": {"value": "http://127.0.0.1:8500", "origin": "default"}}
    rows |= {name: {"value": value, "origin": f"flag -{name}"} for name, value in given.items()}
    return {"settings": rows, "policy": {"narrow": [], "deny_file": None}}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The status that any agent gives."""
    document = status(
        sidecar_for="web", http_addr="http://10.0.0.1:8500", upstream="db@dc2 on 127.0.0.1:9192"
    )

    async def status_of(_address: Address) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        return document

    monkeypatch.setattr(found, "status_of", status_of)
    return document


def read(*words: str, required: bool = True, variable: str = "") -> Resolution:
    environ = {variable: "a:b"} if variable else {}
    resolution = read_beside(words, environ, RUN_FLAGS, identity_required=required)
    assert resolution is not None
    return resolution


AT = "-admin-bind=unix:/run/web.sock"


def test_what_the_command_does_not_name_is_the_agents(asked: dict[str, Any]) -> None:
    taken = read(AT).settings
    assert taken is not None
    assert (taken.sidecar_for, str(taken.http_addr)) == ("web", "http://10.0.0.1:8500")
    assert [str(one) for one in taken.upstream or ()] == ["db@dc2 on 127.0.0.1:9192"]


def test_what_the_command_names_is_kept(asked: dict[str, Any]) -> None:
    taken = read(AT, "-http-addr=10.9.9.9:8500", "-upstream=x:1").settings
    assert taken is not None
    assert (taken.sidecar_for, str(taken.http_addr)) == ("web", "http://10.9.9.9:8500")
    assert len(taken.upstream or ()) == 1
    another = read(AT, "-proxy-id=api-proxy").settings
    assert another is not None
    assert (another.sidecar_for, another.upstream) == (None, None)


@pytest.mark.parametrize("secret", ["CONSUL_HTTP_TOKEN", "CONSUL_HTTP_AUTH"])
def test_a_secret_goes_to_no_consul_that_the_agent_names(asked: dict[str, Any], secret: str) -> None:
    resolution = read(AT, variable=secret)
    assert resolution.settings is not None
    assert str(resolution.settings.http_addr) == "http://127.0.0.1:8500"
    assert "not http://10.0.0.1:8500 as by the agent" in resolution.notes[0]


def test_a_file_of_secrets_is_never_the_agents_to_name(asked: dict[str, Any]) -> None:
    asked["settings"]["token_file"] = {"value": __file__, "origin": "flag -token-file"}
    asked["settings"]["client_key"] = {"value": __file__, "origin": "flag -client-key"}
    taken = read(AT).settings
    assert taken is not None
    assert (taken.token_file, taken.client_key) == (None, None)


def test_the_policy_is_the_agents_too(asked: dict[str, Any]) -> None:
    asked["policy"] = {"narrow": ["web@dc1,dc2"], "deny_file": "/etc/deny"}
    taken = read(AT).settings
    assert taken is not None
    assert [str(one) for one in taken.narrow or ()] == ["web@dc1,dc2"]
    assert taken.deny_file == Path("/etc/deny")


@pytest.mark.parametrize(
    ("printed", "taken"),
    [
        ("(none)", []),
        ("db [a, b] on 127.0.0.1:1, api on unix:/run/api", ["api on unix:/run/api"]),
        (
            "prepared_query:near@dc2 on [::1]:9, db near n1 on 127.0.0.1:2",
            ["prepared_query:near@dc2 on [::1]:9"],
        ),
    ],
)
def test_an_upstream_that_no_flag_can_say_is_left_out(
    asked: dict[str, Any], printed: str, taken: list[str]
) -> None:
    asked["settings"]["upstream"]["value"] = printed
    settings = read(AT).settings
    assert settings is not None
    assert [str(one) for one in settings.upstream or ()] == taken


def test_the_definition_is_read_from_consul_again(asked: dict[str, Any]) -> None:
    asked["settings"]["upstream"]["origin"] = "definition web-proxy"
    taken = read(AT).settings
    assert taken is not None
    assert taken.upstream is None


def test_the_one_instance_is_asked_without_a_flag(runtime: Path, asked: dict[str, Any]) -> None:
    assert read().mistakes  # there is none
    run_instance(runtime, "web")
    taken = read().settings
    assert taken is not None
    assert taken.sidecar_for == "web"
    run_instance(runtime, "api")
    with pytest.raises(Exit, match="api, web"):
        read()
    unasked = read(required=False).settings
    assert unasked is not None
    assert unasked.identity is None


def test_an_agent_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with pytest.raises(Exit, match="no agent answers") as raised:
        read(f"-admin-bind=unix:{tmp_path}/none.sock")
    assert raised.value.code is ExitCode.UNAVAILABLE


def test_another_program_at_the_address_is_said_to_be_none(asked: dict[str, Any]) -> None:
    asked.clear()
    with pytest.raises(Exit, match="no agent of this version"):
        read(AT)
