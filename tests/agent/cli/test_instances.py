"""Which agents of this machine a command finds without being told where."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.base.address import TcpAddress, UnixAddress
from agent.base.exits import Exit, ExitCode
from agent.cli import instances as found
from agent.cli.instances import beside, instances, named, only
from agent.config.settings import Settings, resolve

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
