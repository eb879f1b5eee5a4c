"""`sidecar check [FILE]`: prints every mistake in the settings, or the effective settings with their origins.

Each upstream is printed with its limits. For upstreams of a service definition see `/status` of a running
agent.
"""

from __future__ import annotations

from collections.abc import Iterator

import trio

from agent.base.address import TcpAddress
from agent.base.exits import ExitCode
from agent.cli.console import Console, effective_text, run_usage
from agent.config.collisions import CHECK
from agent.config.effective import listening_at, servable, unregistered
from agent.config.load import read_settings
from agent.config.opaque_config import Problem
from agent.config.settings import Origin, Rank, Settings
from agent.control.deny_file import DenyFile, DenyFileUnusable
from agent.control.own_addresses import look_up
from agent.proxy import upstream_limits
from upstreams.spec import Upstream

_OWN = ("127.0.0.1", "::1", "localhost")
SAYS = "validate the settings and print the effective ones with their origins"


def main(_name: str, console: Console) -> int:
    """Check the settings; the service may be missing, since a systemd template names it per instance."""
    resolution = read_settings(console.words, console.environ, config_word=True, identity_required=False)
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
    meeting = trio.run(_meeting, resolution.settings)
    for problem in meeting:
        console.complain(str(problem))
    if meeting:
        return ExitCode.CONFIGURATION
    for note in _notes(resolution.settings):
        console.complain(f"note: {note}")
    console.say(effective_text(resolution.settings.effective()))
    for upstream in resolution.settings.upstream or ():
        console.say(f"\nupstream {upstream}")
        console.say(effective_text(_limits(upstream, resolution.settings)))
    return ExitCode.CLEAN


def _notes(settings: Settings) -> Iterator[str]:
    """Yield what is no mistake in the settings, and may be one of the operator."""
    if settings.identity is None:
        yield (
            "no service is named: `run` needs -sidecar-for ID, -proxy-id ID or -service NAME as well"
            " (the unit sidecar@NAME gives -sidecar-for NAME)"
        )
    for address in settings.admin_bind:
        if isinstance(address, TcpAddress) and address.host not in _OWN:
            yield (
                f"{settings.origins['admin_bind']}: {address} can be reached from the network, and tells"
                " whatever calls it names and addresses; bind 127.0.0.1 or unix:/path"
            )


async def _meeting(settings: Settings) -> list[Problem]:
    """Return the listeners that collide, with names and paths resolved on this machine."""
    effective = unregistered(settings)
    known = await look_up(listening_at(effective, settings.admin_bind))
    problems = servable(effective, settings.admin_bind, known).problems
    return [problem for problem in problems if not problem.where.startswith(CHECK)]


def _limits(upstream: Upstream, settings: Settings) -> list[tuple[str, str, Origin]]:
    """Return each limit with its origin: that of the upstream if it is written there, else the default."""
    written, default = settings.origins["upstream"], Origin(Rank.DEFAULT)
    rows = upstream_limits.written(upstream, settings.wan_addresses, settings.tunnel)
    return [(key, text, default if usual else written) for key, text, usual in rows]
