"""Reads a command's settings from its words, names the exit code if that fails, and reloads them.

Of changed settings those need a restart that decide how Consul, the operator or the workers are reached, and
those that a listener or a connection keeps for its life.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from agent.base.exits import ExitCode
from agent.config.flags import Flag, parse_arguments
from agent.config.options import CONFIG, OPTIONS
from agent.config.settings import Mistake, Resolution, Settings, resolve

RUN_FLAGS = (CONFIG.flag, *(option.flag for option in OPTIONS))
LIVE = frozenset(
    {"listen", "service_addr", "upstream", "narrow", "audit", "strict", "log_level"}
    | {"drain_seconds", "leave_seconds", "start_timeout"}
)


def read_settings(
    command_line: Sequence[str],
    environ: Mapping[str, str],
    *,
    flags: Collection[Flag] = RUN_FLAGS,
    config_word: bool = False,
    identity_required: bool = True,
) -> Resolution | None:
    """Parse the words and resolve the settings, with the mistakes of both.

    Return None when help is asked for.

    `config_word`: the first word that is not a flag names the settings file.
    """
    arguments = parse_arguments(command_line, flags)
    if arguments.help_wanted:
        return None
    words = list(arguments.words)
    config = (arguments.values.get(CONFIG.flag_name) or (environ.get(CONFIG.variable) or None,))[-1]
    if config_word and words:
        config = words.pop(0)
    mistakes = [Mistake(origin=None, text=text) for text in arguments.mistakes]
    mistakes += [
        Mistake(origin=None, text=f"what is {word!r} for? flags start with a dash") for word in words
    ]
    resolution = resolve(
        arguments.values, environ, config, identity_required=identity_required and not mistakes
    )
    if not mistakes:
        return resolution
    return replace(resolution, settings=None, mistakes=(*mistakes, *resolution.mistakes))


def exit_code(resolution: Resolution) -> ExitCode:
    """Return 64 when the command line cannot be parsed, 78 when a setting is wrong, wherever it was given."""
    if resolution.settings is not None:
        return ExitCode.CLEAN
    a_setting = any(mistake.origin is not None for mistake in resolution.mistakes)
    return ExitCode.CONFIGURATION if a_setting else ExitCode.USAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """The settings after a reload; the names of changed ones, and of those that need a restart."""

    settings: Settings
    changed: tuple[str, ...]
    waiting: tuple[str, ...]


def reload(before: Settings, read: Settings) -> Reload:
    """Return the settings `before` with the changes in `read` that apply while the agent runs."""
    names = [option.name for option in OPTIONS if getattr(before, option.name) != getattr(read, option.name)]
    changed = tuple(name for name in names if name in LIVE)
    values = {name: getattr(read, name) for name in changed}
    origins = {**before.origins, **{name: read.origins[name] for name in LIVE}}
    return Reload(
        settings=replace(before, **values, origins=origins),
        changed=changed,
        waiting=tuple(name for name in names if name not in LIVE),
    )
