"""From words to settings, and to the exit code of what is wrong with them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from agent.base.exits import ExitCode
from agent.cli.console import Console
from agent.config.load import LIVE, exit_code, read_settings, reload
from agent.config.options import OPTIONS
from agent.config.settings import Resolution
from tests.support.agent_parts import settings

README = Path(__file__).parents[3] / "systemd" / "README.md"


def told(*words: str, environ: Mapping[str, str] | None = None, check: bool = False) -> Resolution:
    console = Console(words=words, environ=environ or {}, out=io.StringIO(), err=io.StringIO())
    resolution = read_settings(console.words, console.environ, config_word=check, identity_required=not check)
    assert resolution is not None
    return resolution


def test_help_is_not_a_mistake() -> None:
    console = Console(words=("-help",), environ={}, out=io.StringIO(), err=io.StringIO())
    assert read_settings(console.words, console.environ) is None


def test_good_words() -> None:
    resolution = told("-sidecar-for", "web")
    assert resolution.settings is not None
    assert exit_code(resolution) is ExitCode.CLEAN


def test_words_that_cannot_be_read_are_usage() -> None:
    for words in (("-nonsense",), ("-token",), ("word",), ("-sidecar-for", "a", "-proxy-id", "b"), ()):
        assert exit_code(told(*words)) is ExitCode.USAGE, words


def test_a_wrong_setting_is_configuration_wherever_it_was_said(tmp_path: Path) -> None:
    file = tmp_path / "web.toml"
    file.write_text("nonsense = 1\n")
    assert exit_code(told("-sidecar-for", "web", "-log-level", "loud")) is ExitCode.CONFIGURATION
    assert exit_code(told("-sidecar-for", "web", "-config", str(file))) is ExitCode.CONFIGURATION
    assert exit_code(told("-sidecar-for", "web", environ={"CONSUL_HTTP_SSL": "x"})) is ExitCode.CONFIGURATION
    assert exit_code(told("-nonsense", "-log-level", "loud")) is ExitCode.CONFIGURATION


def test_mistakes_of_words_and_of_settings_come_together() -> None:
    resolution = told("-nonsense", "word", "stray", "-log-level", "loud")
    assert [str(mistake) for mistake in resolution.mistakes] == [
        "unknown flag -nonsense",
        "what is 'stray' for? flags start with a dash",
        "flag -log-level: 'loud' is not one of debug, info, warn, error",
    ]


def test_the_settings_file_by_flag_by_variable_and_by_word(tmp_path: Path) -> None:
    file = tmp_path / "web.toml"
    file.write_text('sidecar_for = "web"\n')
    for resolution in (
        told("-config", str(file)),
        told(environ={"SIDECAR_CONFIG": str(file)}),
        told(str(file), check=True),
    ):
        assert resolution.settings is not None
        assert resolution.settings.sidecar_for == "web"
        assert resolution.notes == ()


def test_what_can_change_changes_and_the_rest_is_named() -> None:
    before = settings(drain_seconds="5", max_handshakes="9")
    read = settings(drain_seconds="7", narrow=["web@dc1"], workers="2", http_addr="127.0.0.1:1")
    reloaded = reload(before, read)
    assert reloaded.changed == ("drain_seconds", "narrow")
    assert reloaded.waiting == ("http_addr", "max_handshakes", "workers")
    assert (reloaded.settings.drain_seconds, reloaded.settings.narrow) == (7, read.narrow)
    assert (reloaded.settings.workers, reloaded.settings.max_handshakes) == (1, 9)
    assert str(reloaded.settings.origins["drain_seconds"]) == "flag -drain-seconds"


def test_what_waits_goes_on_waiting() -> None:
    before, read = settings(), settings(workers="2")
    again = reload(reload(before, read).settings, read)
    assert (again.changed, again.waiting) == ((), ("workers",))


def test_the_operators_page_names_what_is_carried_out() -> None:
    assert {option.name for option in OPTIONS} >= LIVE
    section = README.read_text().partition("## Change the settings while it runs")[2].partition("\n## ")[0]
    carried_out = section.partition("A restart is needed")[0]
    assert {name for name in LIVE if f"`{name}`" in carried_out} == LIVE
