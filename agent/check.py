"""`sidecar check [FILE]`: every mistake in the settings at once, or what is in force and its origins."""

from __future__ import annotations

from agent.console import Console, effective_text, run_usage
from agent.deny_file import DenyFile, DenyFileUnusable
from agent.exits import ExitCode
from agent.told import read_settings

SAYS = "validate the settings and print the effective ones with their origins"


def main(_name: str, console: Console) -> int:
    """Whom to run beside may be missing: a unit gives it per instance."""
    resolution = read_settings(console, config_word=True, identity_required=False)
    if resolution is None:
        console.say(run_usage("check", SAYS, "[FILE]"))
        return ExitCode.CLEAN
    for note in resolution.notes:
        console.complain(f"note: {note}")
    if resolution.settings is None:
        console.complain_of(resolution.mistakes)
        return ExitCode.CONFIGURATION
    try:
        DenyFile(resolution.settings.deny_file).load()
    except DenyFileUnusable as error:
        console.complain(f"deny_file: {error}")
        return ExitCode.CONFIGURATION
    console.say(effective_text(resolution.settings.effective()))
    return ExitCode.CLEAN
