"""The completions, tried in the shells that are here."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.base.exits import ExitCode
from agent.cli.commands import COMMANDS
from agent.cli.console import Console
from agent.deployment import completion
from agent.deployment.flags import SHELLS, usages


def run(*words: str) -> tuple[int, str, str]:
    """Run the command; its code, and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    code = completion.main("completion", Console(words=words, environ={}, out=out, err=err))
    return code, out.getvalue(), err.getvalue()


def completed(*words: str) -> list[str]:
    """What bash offers after these words; the last is the one that is begun."""
    line = ("sidecar", *words)
    asked = (
        f"{completion.bash(usages())}\nCOMP_WORDS=({' '.join(repr(word) for word in line)})\n"
        f"COMP_CWORD={len(line) - 1}\n_sidecar\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True, cwd="/etc")
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("ru",), ["run"]),
        (("",), [*COMMANDS, "help", "version"]),
        (("run", "-log-f"), ["-log-format"]),
        (("run", "-log-format", ""), ["text", "json", "journald"]),
        (("run", "--log-format", "j"), ["json", "journald"]),
        (("run", "-config", "hostnam"), ["hostname"]),
        (("check", "hostnam"), ["hostname"]),
        (("connect", "pro"), ["proxy"]),
        (("units", "sidecar@.se"), ["sidecar@.service"]),
        (("drain", "-"), ["-admin-bind"]),
    ],
)
def test_bash_offers(words: tuple[str, ...], offered: list[str]) -> None:
    assert completed(*words) == offered


@pytest.mark.parametrize(("shell", "check"), [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")])
def test_the_shell_takes_its_script(tmp_path: Path, shell: str, check: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / shell
    script.write_text(run(shell)[1])
    done = subprocess.run([shell, check, script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("shell", SHELLS)
def test_every_flag_of_run_is_in_the_script(shell: str) -> None:
    code, script, _ = run(shell)
    assert code == 0
    assert [option.flag_name for option in usages()["run"].options if option.flag_name not in script] == []


def test_a_shell_that_there_is_not() -> None:
    assert run("csh")[0] == ExitCode.USAGE
    assert run() == (ExitCode.USAGE, "", "sidecar: say for which shell: bash, zsh, fish\n")
