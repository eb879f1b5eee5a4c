"""`sidecar units`: what it lists and prints, and what it writes where."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from agent.base.exits import ExitCode
from agent.cli.console import Console
from agent.deployment import units

SOURCES = Path(__file__).resolve().parents[3] / "systemd"


def run(*words: str) -> tuple[int, str, str]:
    """Run the command; its code, and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    code = units.main("units", Console(words=words, environ={}, out=out, err=err))
    return code, out.getvalue(), err.getvalue()


def test_every_unit_and_sample_is_listed_with_its_subject() -> None:
    code, out, _ = run()
    assert code == 0
    listed = {line.split()[0] for line in out.splitlines()}
    assert listed == {path.name for path in SOURCES.iterdir() if path.suffix in units.UNITS + units.SAMPLES}
    assert "sidecar@.socket              Public listener of the Consul Connect sidecar of %i\n" in out


def test_a_unit_is_printed_with_the_program_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "sidecar"
    program.touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    _, out, _ = run("sidecar@.service")
    assert f"\nExecStart={program} run -config /etc/connect-sidecar/%i.toml\n" in out
    assert units.SHIPPED not in out
    program.unlink()
    assert run("sidecar@.service")[1] == (SOURCES / "sidecar@.service").read_text()


def test_a_name_that_there_is_not() -> None:
    code, out, err = run("sidecar@.servce")
    assert (code, out) == (ExitCode.USAGE, "")
    assert err.startswith("sidecar: there is no 'sidecar@.servce'; did you mean sidecar@.service?; ")


def test_units_alone_are_installed_and_a_changed_one_is_kept_without_force(tmp_path: Path) -> None:
    there = ("-install", str(tmp_path / "units"), "-program", "/usr/bin/sidecar")
    code, out, _ = run(*there)
    assert code == 0
    written = sorted(path.name for path in (tmp_path / "units").iterdir())
    assert written == sorted(path.name for path in SOURCES.iterdir() if path.suffix in units.UNITS)
    assert out.endswith("next: systemctl daemon-reload\n")
    unit = tmp_path / "units" / "sidecar@.service"
    assert "\nExecStart=/usr/bin/sidecar run " in unit.read_text()
    assert unit.stat().st_mode & 0o777 == 0o644
    assert run(*there)[0] == 0
    unit.write_text("mine\n")
    (tmp_path / "units" / "sidecar.target").unlink()
    code, _, err = run(*there)
    assert (code, err) == (
        1,
        f"sidecar: already there, and different: {unit}; -force overwrites them\n",
    )
    assert unit.read_text() == "mine\n"
    assert not (tmp_path / "units" / "sidecar.target").exists()
    assert run(*there, "-force")[0] == 0
    assert unit.read_text() != "mine\n"


def test_a_program_that_units_cannot_see_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "running_program", lambda: "/home/me/.venv/bin/sidecar")
    code, _, err = run("-install", str(tmp_path))
    assert code == ExitCode.CONFIGURATION
    assert err.startswith("sidecar: /home/me/.venv/bin/sidecar cannot be started by a unit, ")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, err = run("-install", str(tmp_path / "file"), "-program", "/usr/bin/sidecar")
    assert code == ExitCode.FAILED
    assert err == f"sidecar: {tmp_path / 'file'}: File exists\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-instal",), "unknown flag -instal; did you mean -install?"),
        (("-install", "/a", "/b"), "what is '/b' for? -install takes one directory"),
    ],
)
def test_wrong_words(words: tuple[str, ...], said: str) -> None:
    assert run(*words) == (ExitCode.USAGE, "", f"sidecar: {said}\n")
