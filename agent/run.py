"""`sidecar run`: makes an agent from the settings and runs it.

Every failure is one line of the log, `exit`, and an exit code.
"""

from __future__ import annotations

import os
import resource
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Self

import trio

from agent import VERSION
from agent.awaited import Awaited
from agent.base.clock import Clock, now
from agent.base.exits import Exit, ExitCode, NotYet
from agent.cli.console import Console, run_usage
from agent.config.load import exit_code, read_settings
from agent.config.options import LogLevel
from agent.config.settings import Resolution, Settings
from agent.consul.connect import consul_of
from agent.consul.token import TokenSource
from agent.control.deny_file import DenyFile, DenyFileUnusable
from agent.control.plane import ControlPlane
from agent.handover import memory
from agent.handover.keep import StateKeeper
from agent.handover.memory import Memory
from agent.handover.predecessor import Predecessor, predecessor
from agent.handover.resume import Resume
from agent.handover.sealed_file import SealedFile, sealed_file
from agent.handover.succession import Succession
from agent.handover.upgrade import Upgrade
from agent.handover.upgrade import spawner as new_program
from agent.lifecycle import END_SECONDS, Lifecycle
from agent.log.events import Journal
from agent.log.log import LogOptions, options_of
from agent.net.bind import address_of
from agent.net.inherited import InheritedSockets
from agent.net.kept import PREFIX, KeptSockets
from agent.observe.agent import Agent
from agent.process.end_deadline import EndDeadline
from agent.process.memory import settle
from agent.process.sink import never_waiting
from agent.process.systemd import Notifier, inherited_descriptors, notifier, sockets_among
from agent.proxy.dataplane import DataPlane, LocalDataPlane
from agent.sandbox import landlock, rules
from agent.tracing.begin import traced

SAYS = "run the sidecar of a service"
CODE = Path(__file__).resolve().parents[1]  # a checkout, or the packages of an environment


def start(console: Console, environ: MutableMapping[str, str]) -> int:
    """Run the agent with a log that waits for no reader; return the exit code."""
    with never_waiting(environ.get("JOURNAL_STREAM", "")) as err:
        return main(replace(console, err=err.stream), environ)


def main(console: Console, environ: MutableMapping[str, str]) -> int:
    """Run the agent; return the exit code. systemd's variables are removed from the environment."""
    old = predecessor(environ)
    read = partial(read_settings, console.words, console.environ)
    resolution = read()
    if resolution is None:
        console.say(run_usage("run", SAYS))
        return ExitCode.CLEAN
    manager = notifier(environ, os.getpid())
    manager.muted = old is not None
    descriptors = inherited_descriptors(environ, os.getpid()) if old is None else old.descriptors
    handed = Handed.of(descriptors, manager)
    try:
        agent, state, waited = _made(resolution, read, console, environ, handed, waits=old is None)
    except Exit as error:
        Journal(console.err, now, LogOptions(form=resolution.log_format)).exiting(error.code, error.message)
        if old is not None:
            trio.run(old.fail, error.message)
        return error.code
    for note in (*console.notes, *resolution.notes):
        agent.log.note(note)
    too_long = f"what was cancelled had not ended {END_SECONDS:g} s later"
    deadline = EndDeadline(END_SECONDS, partial(agent.log.exiting, ExitCode.FAILED, too_long))
    life = Lifecycle(
        agent=agent,
        notifier=manager,
        kept=handed.kept,
        state=state,
        succession=_succession(agent, handed, manager, environ, old),
        read=read,
        on_ready=settle,
        on_end=deadline.begin,
        waited=waited,
    )
    return _live(life)


def _succession(
    agent: Agent,
    handed: Handed,
    manager: Notifier,
    environ: MutableMapping[str, str],
    old: Predecessor | None,
) -> Succession:
    upgrade = Upgrade(
        notifier=manager,
        spawn=new_program(environ, manager),
        descriptors=handed.descriptors,
        events=agent.log,
    )
    return Succession(notifier=manager, kept=handed.kept, upgrade=upgrade, predecessor=old)


def _made(
    resolution: Resolution,
    read: Callable[[], Resolution | None],
    console: Console,
    environ: MutableMapping[str, str],
    handed: Handed,
    *,
    waits: bool,
) -> tuple[Agent, StateKeeper, float]:
    """Return an agent, the keeper of its state, and how many seconds a missing file took. Raises Exit.

    An upgrade does not wait: the old program serves, and reports what is wrong.
    """

    def attempt(resolution: Resolution) -> tuple[Agent, StateKeeper]:
        settings = _valid(resolution, console)
        file = sealed_file(settings.state_dir, settings.state_key_file)
        agent = assemble(settings, console, now, environ, handed)
        return agent, _state(agent, handed, file)

    try:
        return *attempt(resolution), 0.0
    except NotYet as error:
        if not waits:
            raise
        log = Journal(console.err, now, LogOptions(form=resolution.log_format))
        awaited = Awaited(handed.manager, log.files_awaited, resolution.start_timeout, error.message)
        agent, state = trio.run(awaited.made, lambda: attempt(read() or resolution))
        return agent, state, awaited.waited


def _state(agent: Agent, handed: Handed, file: SealedFile | None) -> StateKeeper:
    """Return the keeper of the state, with what the last run has left."""
    control = agent.control
    resume = Resume(control=control, events=agent.log, clock=now, on_refused=handed.kept.forget_rest)
    resume.read(handed.memory, file)
    agent.last_run = resume
    return StateKeeper(control=control, memory=handed.memory, file=file, resume=resume)


@dataclass(frozen=True, slots=True)
class Handed:
    """What the service manager has handed over: sockets of socket units, what it has kept of the last run."""

    manager: Notifier
    inherited: InheritedSockets
    kept: KeptSockets
    memory: Memory

    def descriptors(self) -> list[tuple[str, int]]:
        """Return everything for the new program of an upgrade, by name."""
        sockets = [*self.inherited.named(), *self.kept.all().items()]
        return [*((name, sock.fileno()) for name, sock in sockets), *self.memory.descriptors()]

    @classmethod
    def of(cls, descriptors: Sequence[tuple[str, int]], manager: Notifier) -> Self:
        """Tell the descriptors apart by their names."""
        store = manager if manager.listening else None
        named = [(one.name, one.sock) for one in sockets_among(descriptors)]
        return cls(
            manager,
            InheritedSockets(one for one in named if not one[0].startswith(PREFIX)),
            KeptSockets((one for one in named if one[0].startswith(PREFIX)), store),
            Memory((one for one in descriptors if one[0].startswith(memory.PREFIX)), store),
        )


def _valid(resolution: Resolution, console: Console) -> Settings:
    """Return the settings. Raises Exit with every mistake in them or in the command line."""
    if console.mistakes:
        raise Exit(ExitCode.USAGE, "; ".join(console.mistakes))
    if resolution.settings is None:
        text = "; ".join(map(str, resolution.mistakes))
        raise NotYet(text) if resolution.awaits_files else Exit(exit_code(resolution), text)
    return resolution.settings


def assemble(
    settings: Settings,
    console: Console,
    clock: Clock,
    environ: MutableMapping[str, str],
    handed: Handed,
) -> Agent:
    """Make an agent, not started yet. Raises NotYet for files that cannot be used."""
    log = Journal(console.err, clock, options_of(settings))
    token = TokenSource(settings.token, settings.token_file)
    control = ControlPlane(
        settings=settings,
        consul=consul_of(settings, token),
        token=token,
        events=log,
        clock=clock,
        rng=Random(),  # noqa: S311 - for jitter and the choice of endpoints, nothing secret
    )
    _load_deny_file(control.deny_file)
    agent = Agent(control=control, data=_data_plane(control, log, environ, handed), log=log, started=clock())
    if settings.audit:
        log.audit_mode()
    if settings.http_addr.tls and not settings.http_ssl_verify:
        log.unverified()
    who = settings.identity
    identity = "" if who is None else f"{who.value}={getattr(settings, who.value)}"
    _raise_file_limit(log)
    if settings.landlock:
        _keep_to_own_files(settings, environ, log)
    log.started(VERSION, os.getpid(), identity, str(settings.http_addr))
    return agent


def _data_plane(
    control: ControlPlane, log: Journal, environ: MutableMapping[str, str], handed: Handed
) -> DataPlane:
    """Return the data plane of this process, or of the workers that the settings ask for."""
    control.public_at = next(map(address_of, handed.inherited.public), None)
    if control.settings.workers > 1:
        from agent.workers.pool import WorkerPool  # noqa: PLC0415 - most agents have no workers
        from agent.workers.process import spawner  # noqa: PLC0415 - most agents have no workers

        return WorkerPool(
            snapshot=control.snapshot,
            settings=control.settings,
            sources=control.endpoints,
            events=log,
            clock=control.clock,
            rng=control.rng,
            inherited=handed.inherited,
            kept=handed.kept,
            spawn=spawner(environ),
        )
    return LocalDataPlane(
        snapshot=control.snapshot,
        settings=control.settings,
        sources=control.endpoints,
        events=log,
        clock=control.clock,
        rng=control.rng,
        inherited=handed.inherited,
        kept=handed.kept,
    )


def _load_deny_file(deny_file: DenyFile) -> None:
    """Read the deny list before the first caller is accepted. Raises NotYet."""
    try:
        deny_file.load()
    except DenyFileUnusable as error:
        raise NotYet(f"deny_file: {error}") from error


def _keep_to_own_files(settings: Settings, environ: Mapping[str, str], journal: Journal) -> None:
    """Have the kernel hold what files these settings need, before there is another thread or a caller."""
    needed = rules.rules(settings, environ, (sys.prefix, sys.base_prefix, str(CODE)))
    try:
        version = landlock.restrict(needed)
    except landlock.Unrestricted as error:
        journal.write(LogLevel.INFO, "sandbox.unrestricted", detail=str(error))
    else:
        journal.write(LogLevel.INFO, "sandbox.restricted", landlock=version, files=str(needed))


def _raise_file_limit(journal: Journal) -> None:
    """Raise the limit of open files as far as allowed: each connection takes two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        journal.note(f"the limit of open files stays at {soft}: {error}")


def _live(life: Lifecycle) -> int:
    """Run the agent; return the exit code. Only a bug leaves a traceback."""
    try:
        return trio.run(_traced, life)
    except BaseException as error:
        failures = list(_leaves(error))
        exits = [failure for failure in failures if isinstance(failure, Exit)]
        if exits and len(exits) == len(failures):
            worst = exits[0]
            life.agent.log.exiting(worst.code, worst.message)
            if life.succession.predecessor is not None:
                trio.run(life.succession.predecessor.fail, worst.message)
            return worst.code
        if not all(isinstance(failure, Exception) for failure in failures):
            raise
        life.agent.log.crashed("".join(traceback.format_exception(error)))
        return ExitCode.FAILED


async def _traced(life: Lifecycle) -> ExitCode:
    data = life.agent.data
    if not isinstance(data, LocalDataPlane):  # each worker traces what it serves
        return await life.run()
    async with traced(data.ledger, life.agent.control.settings):
        return await life.run()


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error
