"""The command line as a process: commands, help, version, and what is not there."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from agent import VERSION
from agent.__main__ import main
from agent.cli.commands import COMMANDS
from tests.support.agent_process import sidecar

ROOT = Path(__file__).resolve().parents[2]


def test_the_version_is_the_package_s() -> None:
    dynamic = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["dynamic"]
    assert dynamic["version"] == {"attr": "agent.VERSION"}


@pytest.mark.parametrize("words", [["-version"], ["--version"], ["version"]])
def test_it_says_its_version(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out == f"sidecar {VERSION}\n"


@pytest.mark.parametrize("words", [[], ["help"], ["-h"], ["-help"], ["--help"], ["help", "nonsense"]])
def test_it_lists_its_commands(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in COMMANDS)


@pytest.mark.parametrize(
    "command", ["run", "connect", "check", "status", "wait", "drain", "units", "manual", "completion"]
)
def test_each_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", command]) == 0
    assert capsys.readouterr().out.startswith(f"usage: sidecar {command} ")


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_three_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "-h"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith(f"  sidecar {command}")]) == 3
    assert lines[-1] == f"`sidecar {command} -help` says all, each flag included."
    assert len(lines) <= 10


def test_words_for_envoy_ask_for_no_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["connect", "envoy", "-help", "--", "-h"]) == 0
    assert capsys.readouterr().out.startswith("usage: sidecar connect proxy")


def test_an_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chek"]) == 64
    assert (
        capsys.readouterr().err
        == "sidecar: unknown command 'chek'; did you mean check?; see `sidecar help`\n"
    )


def test_a_package_of_the_extra_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> object:
        assert name == "datacenter.demo"
        raise ModuleNotFoundError("no", name="rich.table")

    monkeypatch.setattr("importlib.import_module", missing)
    assert main(["demo"]) == 64
    assert capsys.readouterr().err == (
        "sidecar: `demo` needs the package 'rich.table'; install connect-sidecar[datacenter]\n"
    )


def test_a_module_of_ours_that_is_missing_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ModuleNotFoundError("no", name=name)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(ModuleNotFoundError):
        main(["datacenter"])


async def test_the_datacenter_is_handed_its_words() -> None:
    ended = await sidecar("datacenter", "-help")
    assert ended.code == 0
    assert ended.out.startswith("usage: sidecar datacenter")


async def test_check_as_a_process() -> None:
    ended = await sidecar("check", "-drain-seconds", "1m")
    assert ended.code == 0
    assert "drain_seconds = 60" in ended.out
