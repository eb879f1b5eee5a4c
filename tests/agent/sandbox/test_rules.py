"""Which directories an agent of given settings reads and writes, without a kernel."""

from __future__ import annotations

from pathlib import Path

from agent.config.settings import resolve
from agent.sandbox.rules import SYSTEM, Rules, rules

PROGRAM = "/opt/connect-sidecar"


def ruled(tmp_path: Path, text: str = "", **environ: str) -> Rules:
    """Return the rules for these settings, in a file of their own directory."""
    file = tmp_path / "etc" / "web.toml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(f'sidecar_for = "web"\n{text}')
    resolution = resolve({}, {}, str(file))
    assert resolution.settings is not None, resolution.mistakes
    return rules(resolution.settings, environ, (PROGRAM,))


def test_the_system_the_program_and_the_directory_of_the_settings_are_read(tmp_path: Path) -> None:
    readable = ruled(tmp_path).readable
    assert {str(place) for place in readable} == {*SYSTEM, PROGRAM, str(tmp_path / "etc")}


def test_nothing_is_written_without_a_directory_of_the_service_manager(tmp_path: Path) -> None:
    assert ruled(tmp_path).writable == ()
    given = ruled(
        tmp_path, RUNTIME_DIRECTORY="/run/connect-sidecar/web", STATE_DIRECTORY="/var/lib/a:/var/lib/b"
    )
    assert [str(place) for place in given.writable] == [
        "/run/connect-sidecar/web",
        "/var/lib/a",
        "/var/lib/b",
    ]


def test_a_named_file_opens_its_directory_and_that_of_what_it_links_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "token").write_text("secret\n")
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "token").symlink_to(tmp_path / "real" / "token")
    readable = ruled(tmp_path, f'token_file = "{tmp_path}/link/token"\n').readable
    assert {tmp_path / "link", tmp_path / "real"} <= set(readable)


def test_a_place_below_another_is_not_listed(tmp_path: Path) -> None:
    readable = ruled(
        tmp_path, CREDENTIALS_DIRECTORY="/run/credentials/x", SSL_CERT_DIR="/etc/ssl/certs"
    ).readable
    assert Path("/run/credentials/x") in readable
    assert Path("/etc/ssl") not in readable


def test_the_rules_are_said_in_a_line() -> None:
    told = Rules(readable=(Path("/a"), Path("/b")), writable=())
    assert str(told) == "reads below /a, /b; writes below nothing"
