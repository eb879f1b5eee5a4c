"""`sidecar run`: settings to a running agent, and every reason not to run to one message and an exit code."""

from __future__ import annotations

import os
import resource
import traceback
from collections.abc import Callable, Iterator, MutableMapping
from datetime import datetime
from random import Random

import trio

from agent import VERSION
from agent.base.clock import now
from agent.base.exits import Exit, ExitCode
from agent.cli.console import Console, run_usage
from agent.config.load import exit_code, read_settings
from agent.config.settings import Settings
from agent.connections.ledger import Ledger
from agent.consul.connect import consul_of
from agent.consul.token import TokenSource
from agent.control.deny_file import DenyFileUnusable
from agent.lifecycle import Lifecycle
from agent.observe.events import Journal
from agent.parts import Parts
from agent.process.memory import settle
from agent.process.systemd import inherited_sockets, notifier
from agent.proxy.dataplane import Reactions

SAYS = "run the agent beside a service"


def main(console: Console, environ: MutableMapping[str, str]) -> int:
    """Run until the end. systemd's variables are taken out of the environment."""
    resolution = read_settings(console)
    if resolution is None:
        console.say(run_usage("run", SAYS))
        return ExitCode.CLEAN
    settings = resolution.settings
    if settings is None:
        console.complain_of(resolution.mistakes)
        return exit_code(resolution)
    try:
        parts, reactions = assemble(settings, console, now)
    except Exit as error:
        console.complain(error.message)
        return error.code
    for note in resolution.notes:
        parts.journal.note(note)
    if settings.workers > 1:
        from agent.workers.process import spawner  # noqa: PLC0415 - most agents have no workers
        from agent.workers.supervisor import Workers  # noqa: PLC0415 - nor this

        parts.crew = Workers(parts, settings.workers, spawner(environ))
    life = Lifecycle(
        parts=parts,
        reactions=reactions,
        notifier=notifier(environ, os.getpid()),
        inherited=inherited_sockets(environ, os.getpid()),
        on_ready=settle,
    )
    return _live(life, console)


def assemble(settings: Settings, console: Console, clock: Callable[[], datetime]) -> tuple[Parts, Reactions]:
    """The parts of an agent before it starts. Raises Exit for files that cannot be used."""
    journal = Journal(
        console.err,
        clock,
        level=settings.log_level,
        form=settings.log_format,
        connections=settings.connection_log,
    )
    token = TokenSource(settings.token, settings.token_file)
    reactions = Reactions()
    parts = Parts(
        settings=settings,
        clock=clock,
        rng=Random(),  # noqa: S311 - jitter and the choice of endpoints, nothing secret
        journal=journal,
        consul=consul_of(settings, token),
        token=token,
        ledger=Ledger(clock, reactions),
        started=clock(),
    )
    _load_deny_file(parts)
    if settings.audit:
        journal.audit_mode()
    if settings.http_addr.tls and not settings.http_ssl_verify:
        journal.unverified()
    who = settings.identity
    identity = "" if who is None else f"{who.value}={getattr(settings, who.value)}"
    _raise_file_limit(journal)
    journal.started(VERSION, os.getpid(), identity, str(settings.http_addr))
    return parts, reactions


def _load_deny_file(parts: Parts) -> None:
    """Who must not be let in is known before anybody is."""
    try:
        parts.deny_file.load()
    except DenyFileUnusable as error:
        raise Exit(ExitCode.CONFIGURATION, f"deny_file: {error}") from error


def _raise_file_limit(journal: Journal) -> None:
    """As many files as we may have: each connection takes two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        journal.note(f"the limit of open files stays at {soft}: {error}")


def _live(life: Lifecycle, console: Console) -> int:
    """Run it; one message for each expected end, a traceback for a bug alone."""
    try:
        return trio.run(life.run)
    except BaseException as error:
        failures = list(_leaves(error))
        exits = [failure for failure in failures if isinstance(failure, Exit)]
        if exits and len(exits) == len(failures):
            worst = exits[0]
            console.complain(worst.message)
            return worst.code
        if not all(isinstance(failure, Exception) for failure in failures):
            raise
        life.parts.journal.crashed("".join(traceback.format_exception(error)))
        return ExitCode.FAILED


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error
