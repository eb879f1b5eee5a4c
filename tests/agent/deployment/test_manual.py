"""The man pages say everything that the tables know, in a form that troff takes."""

from __future__ import annotations

import io
import re
import shlex
import shutil
import subprocess

import pytest

from agent.base.exits import ExitCode
from agent.cli.commands import COMMANDS
from agent.cli.console import Console, examples
from agent.config.flags import parse_arguments
from agent.config.options import BY_NAME, OPTIONS
from agent.deployment import manual
from agent.deployment.flags import PAGES, usages
from agent.deployment.manual import of_program, of_settings, text
from datacenter.config.options import parse_flags


def run(*words: str) -> tuple[int, str, str]:
    """Run the command; its code, and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    code = manual.main("manual", Console(words=words, environ={}, out=out, err=err))
    return code, out.getvalue(), err.getvalue()


def test_every_command_and_flag_is_in_the_page_of_the_program() -> None:
    page = of_program(usages())
    assert [name for name in COMMANDS if rf"\fB{manual.text(name)}\fR" not in page] == []
    flags = {option.flag_name for usage in usages().values() for option in usage.options}
    assert {option.flag_name for option in OPTIONS} < flags
    assert [flag for flag in flags if rf"\fB{text(f'-{flag}')}\fR" not in page] == []


def test_every_exit_status_is_in_the_page_of_the_program() -> None:
    assert [code for code in ExitCode if rf"\fB{int(code)}\fR" not in of_program(usages())] == []


def test_every_setting_is_in_the_page_of_the_settings_with_flag_and_variable() -> None:
    page = of_settings()
    assert [name for name in BY_NAME if rf"\fB{name}\fR = " not in page] == []
    assert r"(\-http\-addr, CONSUL_HTTP_ADDR, default http://127.0.0.1:8500)." in page
    assert r"\fBlog_level\fR = debug | info | warn | error" in page
    assert "\n[[upstreams]]\n" in page


def test_every_example_is_in_the_page_of_the_program() -> None:
    page = of_program(usages())
    lines = [line for rows in examples().values() for line, _ in rows]
    assert [line for line in lines if rf"\fB{text(line)}\fR" not in page] == []


@pytest.mark.parametrize("command", [name for name, usage in usages().items() if usage.options])
def test_the_flags_of_an_example_are_the_commands(command: str) -> None:
    flags = [option.flag for option in usages()[command].options]
    for line, _ in examples()[command]:
        assert shlex.split(line)[:2] == ["sidecar", command]
        assert parse_arguments(shlex.split(line)[2:], flags).mistakes == ()


def test_the_datacenters_of_the_examples_have_what_they_need() -> None:
    for line, _ in examples()["datacenter"]:
        given = parse_flags(shlex.split(line)[2:])
        assert "config" in given or {"name", "data-dir"} <= set(given)
        assert ("primary-addr" in given) == ("primary-datacenter" in given)


@pytest.mark.parametrize(
    ("plain", "printed"),
    [(".dot", r"\&.dot"), ("a\n.b", "a\n\\&.b"), ("-x", r"\-x"), (r"a\b", r"a\eb"), ("'q'", r"\(aqq\(aq")],
)
def test_text_is_printed_as_it_is(plain: str, printed: str) -> None:
    assert text(plain) == printed


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_what_troff_takes(page: str) -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    shown = run(page)[1]
    assert shown.isascii()
    made = subprocess.run(
        ["groff", "-man", "-Tascii", "-ww", "-P-c"],
        input=shown,
        capture_output=True,
        text=True,
        check=True,
    )
    assert made.stderr == ""
    assert re.search(r"exit 69 if files and", re.sub(r"\s+", " ", made.stdout), flags=re.IGNORECASE)


def test_a_page_that_there_is_not() -> None:
    assert run("sidecar.tml") == (
        ExitCode.USAGE,
        "",
        "sidecar: no page 'sidecar.tml'; did you mean sidecar.toml?; there are sidecar, sidecar.toml\n",
    )
    assert run()[1] == run("sidecar")[1]
