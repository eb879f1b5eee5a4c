"""From words to settings, and to the exit code of what is wrong with them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from agent.base.exits import ExitCode
from agent.cli.console import Console
from agent.config.load import exit_code, read_settings
from agent.config.settings import Resolution


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
