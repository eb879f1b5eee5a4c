"""`sidecar run` as a process: every way not to start has its code, one clear message and no traceback."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from agent.base.exits import Exit, ExitCode
from agent.cli.console import Console
from agent.log.events import Journal
from agent.run import main
from tests.support.agent_process import command, environment, lines_until, sidecar
from tests.support.beside_consul import QUIET, everything, unused
from tests.support.fake_consul import FakeConsul

pytestmark = pytest.mark.slow


@pytest.fixture
async def consul(nursery: trio.Nursery) -> FakeConsul:
    return FakeConsul()


async def test_nothing_to_run_beside() -> None:
    ended = await sidecar("run")
    assert ended.code == 64
    assert ended.last_words == "say whom to run beside: -sidecar-for ID, -proxy-id ID or -service NAME"


async def test_an_unknown_flag() -> None:
    ended = await sidecar("run", "-sidecar-fro", "web")
    assert ended.code == 64
    assert ended.last_words == "unknown flag -sidecar-fro; did you mean -sidecar-for?"


async def test_an_unknown_key_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "web.toml"
    file.write_text('sidecar_for = "web"\ndrain_second = 3\n')
    ended = await sidecar("run", "-config", str(file))
    assert ended.code == 78
    assert ended.last_words == f"file {file}, line 2: unknown key 'drain_second'; did you mean drain_seconds?"


async def test_a_missing_settings_file() -> None:
    ended = await sidecar("run", "-config", "/nowhere/web.toml")
    assert ended.code == 78
    assert ended.last_words.startswith("file /nowhere/web.toml: cannot be read: No such file or directory; ")


async def test_a_ca_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")
    words = ("-sidecar-for", "web", "-http-addr", "https://127.0.0.1:1", "-ca-file", str(tmp_path / "ca.pem"))
    ended = await sidecar("run", *words, "-start-timeout", "0.3")
    assert ended.code == 69
    wrong = "the TLS files for https://127.0.0.1:1 cannot be used"
    assert ended.last_words.startswith(f"not able to serve within 0.3 s: {wrong}")
    assert ended.err.count("files.awaited") == 1


@pytest.mark.parametrize("flag", ["-token-file", "-ca-file", "-state-key-file", "-ca-path"])
async def test_a_file_that_is_not_there_yet_is_waited_for_and_then_the_exit_is_tried_again(
    tmp_path: Path, flag: str
) -> None:
    words = ("-sidecar-for", "web", flag, str(tmp_path / "late"), "-start-timeout", "0.3", *QUIET)
    ended = await sidecar("run", *words)
    assert ended.code == 69
    assert f"{flag}: there is no " in ended.last_words


async def test_what_a_file_took_is_taken_from_the_time_that_consul_has(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    token = tmp_path / "late"
    words = ("-sidecar-for", "web", "-token-file", str(token), "-start-timeout", "1.5", *QUIET)
    run = command("run", *words, "-http-addr", unused())
    process = await trio.lowlevel.open_process(run, env=environment(), stderr=subprocess.PIPE)
    assert process.stderr is not None
    async with process.stderr:
        await lines_until(process.stderr, "files.awaited")
        token.write_text("s3cret")
        said = await lines_until(process.stderr, " exit: ")
    await process.wait()
    assert re.search(r"not able to serve within 1.5 s, of which files took \d\.\d s: registration: ", said)


async def test_a_client_certificate_that_is_not_there_yet_is_no_wrong_setting(tmp_path: Path) -> None:
    pair = ("-client-cert", str(tmp_path / "a.pem"), "-client-key", str(tmp_path / "a.key"))
    words = ("-sidecar-for", "web", "-start-timeout", "0.3", *QUIET)
    ended = await sidecar("run", *words, *pair)
    assert ended.code == 69
    assert "-client-cert: there is no file" in ended.last_words
    assert (await sidecar("run", *words, *pair[:2])).code == 78  # for the key is not named at all


async def test_several_mistakes_are_told_at_once() -> None:
    ended = await sidecar(
        "run", "-sidecar-for", "web", "-log-level", "loud", environ={"CONSUL_HTTP_SSL": "maybe"}
    )
    assert ended.code == 78
    assert "-log-level: " in ended.last_words
    assert "; environment CONSUL_HTTP_SSL: " in f"; {ended.last_words}"
    assert len(ended.err.splitlines()) == 1


async def test_the_control_plane_is_unreachable() -> None:
    address = unused()
    words = ("-sidecar-for", "web", "-http-addr", address, "-start-timeout", "1", *QUIET)
    ended = await sidecar("run", *words)
    assert ended.code == 69
    line = ended.last_words
    assert line.startswith("not able to serve within 1 s: registration: /v1/agent/services")
    assert "unreachable: Connection refused" in line


async def test_an_unknown_service_id(consul: FakeConsul, nursery: trio.Nursery) -> None:
    consul.answer("/v1/agent/services", {})
    consul.answer(
        "/v1/agent/service/wbe-sidecar-proxy", text="unknown service ID: wbe-sidecar-proxy", status=404
    )
    at = await consul.listen(nursery)
    words = ("run", "-sidecar-for", "wbe", "-http-addr", at, "-start-timeout", "1", *QUIET)
    ended = await sidecar(*words)
    assert ended.code == 69
    assert f"the Consul agent at http://{at} knows no sidecar for the service id 'wbe'" in ended.last_words


REFUSED = ["/v1/agent/services", "/v1/agent/connect/ca/leaf/web"]


@pytest.mark.parametrize("path", REFUSED)
async def test_the_token_is_refused(consul: FakeConsul, nursery: trio.Nursery, path: str) -> None:
    everything(consul)
    consul.replace(path)
    consul.answer(path, text="Permission denied", status=403)
    words = (
        "-sidecar-for",
        "web",
        "-listen",
        "127.0.0.1:0",
        "-http-addr",
        await consul.listen(nursery),
        "-start-timeout",
        "1",
        *QUIET,
    )
    ended = await sidecar("run", *words, environ={"CONSUL_HTTP_TOKEN": "s3cret-token"})
    assert ended.code == 69
    assert f"{path} answered 403: Permission denied; the token lacks" in ended.last_words
    assert "s3cret-token" not in ended.err


# --- the same in this process, for what a process does not show ---


def run(*words: str) -> tuple[int, str]:
    """Code and standard error of a run."""
    err = io.StringIO()
    environ = {"NOTIFY_SOCKET": "/nowhere", "LISTEN_FDS": "1"}
    code = main(Console(words=words, environ=environ, out=io.StringIO(), err=err), environ)
    return code, err.getvalue()


def test_mistakes_and_help_end_it_before_anything_is_begun() -> None:
    assert run("-help") == (0, "")
    assert run("-nonsense")[0] == 64
    code, err = run("-sidecar-for", "web", "-http-addr", "https://x", "-drain-seconds", "never")
    assert code == 78
    assert "drain-seconds" in err


def test_an_end_that_was_expected_is_one_message() -> None:
    code, err = run("-sidecar-for", "web", "-http-addr", unused(), "-start-timeout", "0.2", *QUIET)
    assert code == 69
    assert (
        ' [ERROR] sidecar.process: exit: code=69 reason=unavailable detail="not able to serve within 0.2 s: '
        in err.splitlines()[-1]
    )


def test_a_file_that_comes_while_it_is_waited_for_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = tmp_path / "late"
    reasons = []

    def comes(_log: Journal, detail: str) -> None:
        reasons.append(detail)
        late.write_text("")

    monkeypatch.setattr(Journal, "files_awaited", comes)
    words = ("-sidecar-for", "web", "-http-addr", unused(), "-deny-file", str(late), "-start-timeout", "1")
    code, err = run(*words, *QUIET)
    assert reasons == [f"deny_file: {late} cannot be read: No such file or directory"]
    assert "started: version=" in err
    assert code == 69
    assert "registration: " in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("-nonsense",), "usage"),
        (("-sidecar-for", "web", "-drain-seconds", "soon"), "configuration"),
        (("-sidecar-for", "web", "-deny-file", "/nowhere/denied", "-start-timeout", "0.2"), "unavailable"),
        (
            ("-sidecar-for", "web", "-http-addr", "127.0.0.1:1", "-start-timeout", "0.2", *QUIET),
            "unavailable",
        ),
    ],
)
def test_the_last_words_have_the_chosen_form_of_the_log(words: tuple[str, ...], reason: str) -> None:
    code, err = run(*words, "-log-format", "json")
    lines = [json.loads(line) for line in err.splitlines()]
    assert lines[-1]["event"] == "exit"
    assert lines[-1]["level"] == "error"
    assert (lines[-1]["code"], lines[-1]["reason"]) == (code, reason)
    assert lines[-1]["detail"]


def test_what_consul_s_command_line_cannot_have_is_said_in_the_log_as_well() -> None:
    words, err = ("-log-format", "json"), io.StringIO()
    console = Console(words=words, environ={}, out=io.StringIO(), err=err, mistakes=("no such thing",))
    assert main(console, {}) == 64
    line = json.loads(err.getvalue())
    assert (line["event"], line["reason"], line["detail"]) == ("exit", "usage", "no such thing")


def test_verification_that_is_off_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("-sidecar-for", "web", "-http-addr", f"https://{unused()}", "-start-timeout", "0.2")
    code, err = run(*words, "-http-ssl-verify=false", *QUIET)
    assert code == 69
    assert " consul.unverified: " in err


@pytest.mark.parametrize("failure", ["bug", "bug beside an exit", "exits"])
def test_a_bug_leaves_a_trace_in_the_log(monkeypatch: pytest.MonkeyPatch, failure: str) -> None:
    exit_ = Exit(ExitCode.PERMISSION, "told to go")
    errors: dict[str, list[Exception]] = {
        "bug": [ValueError("a bug")],
        "bug beside an exit": [exit_, ExceptionGroup("inner", [ValueError("a bug")])],
        "exits": [exit_, exit_],
    }

    async def fails(_life: object) -> ExitCode:
        raise ExceptionGroup("outer", errors[failure])

    monkeypatch.setattr("agent.lifecycle.Lifecycle.run", fails)
    code, err = run("-sidecar-for", "web")
    if failure == "exits":
        assert code == 77
        last = 'exit: code=77 reason=permission detail="told to go" next="sidecar doctor"'
        assert err.splitlines()[-1].endswith(f" [ERROR] sidecar.process: {last}")
    else:
        assert code == 1
        assert " [ERROR] sidecar.process: crashed: trace=" in err
        assert "ValueError: a bug" in err
        assert len(err.splitlines()) == 2, "the trace is one line"


def test_what_is_no_exception_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupted(_life: object) -> ExitCode:
        raise KeyboardInterrupt

    monkeypatch.setattr("agent.lifecycle.Lifecycle.run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("-sidecar-for", "web")


async def test_no_start_without_the_deny_list(tmp_path: Path) -> None:
    denied = tmp_path / "denied"
    for content in (None, "nonsense\n"):
        if content is not None:
            denied.write_text(content)
        words = ("-sidecar-for", "web", "-deny-file", str(denied), "-start-timeout", "0.3", *QUIET)
        ended = await sidecar("run", *words)
        assert ended.code == 69
        assert ended.last_words.startswith(f"not able to serve within 0.3 s: deny_file: {denied} ")


async def test_audit_is_told_at_start_and_excludes_strict(consul: FakeConsul, nursery: trio.Nursery) -> None:
    consul.answer("/v1/agent/services", {})
    at = await consul.listen(nursery)
    words = ("run", "-sidecar-for", "wbe", "-http-addr", at, "-audit", "-start-timeout", "1", *QUIET)
    ended = await sidecar(*words)
    assert "audit.on" in ended.err
    refused = await sidecar(*words, "-strict")
    assert refused.code == 78
    assert "excludes strict" in refused.err


LINGERING = """
import os, sys
import trio
import agent.run
from agent.cli.console import Console
from agent.lifecycle import Lifecycle

async def lingers(self):
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()

Lifecycle._hear_signals = lingers  # a task that no cancellation reaches
agent.run.END_SECONDS = 0.2
words = ("-sidecar-for", "web", "-http-addr", "127.0.0.1:1", "-start-timeout", "0.2", *sys.argv[1:])
console = Console(words=words, environ={}, out=sys.stdout, err=sys.stderr)
sys.exit(agent.run.main(console, dict(os.environ)))
"""


async def test_an_end_that_hangs_is_ended_and_says_so() -> None:
    call = [sys.executable, "-c", LINGERING, *QUIET]
    with trio.fail_after(20):
        done = await trio.run_process(call, env=environment(), capture_stderr=True, check=False)
    last = done.stderr.decode().splitlines()[-1]
    assert done.returncode == ExitCode.FAILED
    assert "what was cancelled had not ended 0.2 s later" in last
