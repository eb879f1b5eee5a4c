"""`sidecar connect`: which command lines run the agent, and what is said of the others."""

from __future__ import annotations

import io
import json

import pytest

from agent.base.exits import ExitCode
from agent.cli.connect import as_run
from agent.cli.console import Console
from tests.support.agent_process import sidecar


def connect(*words: str) -> tuple[Console | ExitCode, str, str]:
    """What is to be run, and the two outputs."""
    out, err = io.StringIO(), io.StringIO()
    run = as_run(Console(words=words, environ={}, out=out, err=err))
    return run, out.getvalue(), err.getvalue()


def test_run_gets_the_words_and_the_notes() -> None:
    run, out, err = connect("envoy", "-sidecar-for", "web", "-envoy-binary", "/usr/bin/envoy")
    assert isinstance(run, Console)
    assert run.words == ("-sidecar-for=web",)
    assert run.notes == ("-envoy-binary is ignored: no Envoy is started",)
    assert (out, err) == ("", "")


@pytest.mark.parametrize("words", [("-h",), ("--help",), ("proxy", "-help"), ("envoy", "-h")])
def test_help(words: tuple[str, ...]) -> None:
    run, out, _ = connect(*words)
    assert run is ExitCode.CLEAN
    assert out.startswith("usage: sidecar connect proxy ")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "connect: say which: proxy or envoy; Consul's other commands stay with Consul's CLI"),
        (
            ("ca", "get-config"),
            "connect: 'ca' is neither proxy nor envoy; Consul's other commands stay with Consul's CLI",
        ),
        (
            ("envoy", "-gateway=mesh", "-register"),
            (
                "connect envoy: -gateway: the sidecar is no gateway; keep Envoy for that; "
                "connect envoy: -register: registers gateways only, and the sidecar is none"
            ),
        ),
    ],
)
def test_what_cannot_be_run(words: tuple[str, ...], complaint: str) -> None:
    run, _, _ = connect(*words)
    assert isinstance(run, Console)
    assert "; ".join(run.mistakes) == complaint


async def test_a_mistake_is_the_last_line_of_the_log_in_the_form_that_was_asked_for() -> None:
    ended = await sidecar("connect", "envoy", "-sidecar-for", "web", "-gateway=mesh", "-log-format", "json")
    assert ended.code == ExitCode.USAGE
    line = json.loads(ended.err)
    assert (line["event"], line["reason"]) == ("exit", "usage")
    assert line["detail"] == "connect envoy: -gateway: the sidecar is no gateway; keep Envoy for that"


async def test_as_a_process_each_ignored_flag_has_a_line_of_the_log() -> None:
    ended = await sidecar(
        *("connect", "proxy", "-sidecar-for", "web", "-log-json", "-log-level", "TRACE", "-stale"),
        *("-pprof-addr", ":6060", "-http-addr", "127.0.0.1:1", "-start-timeout", "100ms"),
    )
    assert ended.code == ExitCode.UNAVAILABLE
    noted = [line for line in ended.err.splitlines() if "settings.note" in line]
    assert len(noted) == 3
    for line, name in zip(noted, ("-pprof-addr", "-stale", "-log-level TRACE"), strict=True):
        assert f'"text":"{name} ' in line
