"""A worker process: listeners, handshakes, verdicts and the relay, by values from the control process.

It watches nothing and does not talk to Consul. It applies messages in the order in which they come, so a
report also says that all messages before it are applied. It ignores signals, which the control process
handles. When the control process is gone the worker accepts no more callers, gives its connections their
drain time, and ends.
"""

from __future__ import annotations

import os
import signal
import socket
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import TextIO

import msgspec
import trio

from agent import VERSION
from agent.base.clock import Clock, now
from agent.base.containment import Kept, Where
from agent.base.exits import ExitCode
from agent.config.options import LogLevel
from agent.config.registration import Registration
from agent.config.settings import Settings
from agent.log.events import Journal
from agent.log.log import Log, options_of
from agent.policy.authorize import Policy
from agent.policy.deny_list import DenyList
from agent.policy.source_intentions import OwnIntentions, SourceIntentions
from agent.process.memory import give_back, settle
from agent.process.sink import never_waiting
from agent.proxy.dataplane import LocalDataPlane
from agent.snapshot import Snapshot
from agent.tracing.begin import traced
from agent.workers.channel import Channel, ChannelClosed
from agent.workers.endpoints import HandedSources
from agent.workers.listeners import HandedListeners
from agent.workers.messages import (
    FORMAT,
    Finish,
    HandedConfirmation,
    HandedCredentials,
    HandedEndpoints,
    HandedSockets,
    Leaving,
    Message,
    Report,
    Unwatched,
    Verbosity,
    Welcome,
    Withdrawn,
    confirmation_of,
    decode,
    taken_up,
)
from agent.workers.reports import Reported, WorkerRequest, reported


def start(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the worker with a log that waits for no reader; return the exit code."""
    with never_waiting(environ.get("JOURNAL_STREAM", "")) as err:
        return main(words, err.stream)


def main(words: Sequence[str], err: TextIO) -> int:
    """Serve by the channel whose descriptor is the only argument; return the exit code."""
    if len(words) != 1 or not words[0].isdigit():
        err.write("sidecar: `worker` is started by an agent with `workers`, not by hand\n")
        return ExitCode.USAGE
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    os.set_inheritable(int(words[0]), False)
    channel = Channel(socket.socket(fileno=int(words[0])))
    return trio.run(serve, channel, err, now, settle)


async def serve(
    channel: Channel, err: TextIO, clock: Clock, on_first_report: Callable[[], None] = lambda: None
) -> ExitCode:
    """Run one worker from the welcome to its end; return the exit code."""
    try:
        welcome = decode((await channel.receive())[0])
    except ChannelClosed:  # the control process ended first
        return ExitCode.CLEAN
    if not isinstance(welcome, Welcome) or (welcome.version, welcome.format) != (VERSION, FORMAT):
        text = f"the agent is of another version than {VERSION}, which is installed now; restart it"
        Log(err, clock).write(LogLevel.ERROR, "worker.mismatch", detail=text)
        return ExitCode.FAILED
    worker = Worker(channel, welcome, err, clock, on_first_report)
    try:
        return await worker.run()
    except Exception as error:  # noqa: BLE001 - a bug: it is logged, and the process ends
        worker.log.crashed("".join(traceback.format_exception(error)))
        return ExitCode.FAILED


class Worker:
    """A data plane whose snapshot is written by messages."""

    def __init__(
        self,
        channel: Channel,
        welcome: Welcome,
        err: TextIO,
        clock: Clock,
        on_first_report: Callable[[], None],
    ) -> None:
        settings = _share_of_settings(welcome)
        self.log = Journal(err, clock, options_of(settings, welcome.slot))
        self.snapshot = Snapshot()
        self._listeners = HandedListeners(self.log)
        self.endpoints = HandedSources(self._say)
        self.data = LocalDataPlane(
            snapshot=self.snapshot,
            settings=settings,
            sources=self.endpoints,
            events=self.log,
            clock=clock,
            rng=Random(),  # noqa: S311 - it chooses endpoints, nothing secret
            listeners=self._listeners,
        )
        self.data.beat = welcome.beat
        self._channel = channel
        self._clock = clock
        self._workers = welcome.workers
        self._drain_seconds = settings.drain_seconds
        self._to_say: dict[WorkerRequest, None] = {}
        self._has_message = trio.Event()
        self._on_first_report: Callable[[], None] | None = on_first_report

    async def run(self) -> ExitCode:
        """Serve until the control process sends Finish or is gone; return the exit code."""
        async with trio.open_nursery() as tasks:
            kept = Kept(tasks, self.log)
            kept.begin(Where.TASK, "log", self.log.keep_up)
            async with traced(self.data.ledger, self.data.settings), self.data.running():
                kept.begin(Where.TASK, "warm connections", self.data.keep_warm)
                kept.begin(Where.TASK, "memory", give_back, self.data.live)
                kept.begin(Where.TASK, "messages to the control process", self._send_requests)
                code = await self._receive_messages()
            tasks.cancel_scope.cancel()
        return code

    # --- messages from the control process ---

    async def _receive_messages(self) -> ExitCode:
        try:
            while True:
                frame, descriptors = await self._channel.receive()
                message = decode(frame)
                if isinstance(message, Finish):
                    return await self._finish()
                await self._apply(message, [socket.socket(fileno=one) for one in descriptors])
        except ChannelClosed:
            return await self._abandoned()

    async def _apply(self, message: Message, sockets: Sequence[socket.socket]) -> None:
        match message:
            case Registration():
                await self._place(shared_out(message, self._workers))
            case OwnIntentions():
                self.snapshot.own_intentions.publish(message)
            case HandedCredentials() | Policy() | HandedConfirmation() | SourceIntentions() | DenyList():
                self._publish(message)
            case HandedEndpoints():
                self.endpoints.take(message)
            case Verbosity():
                self.log.take_level(message.level)
            case HandedSockets():
                await self._listeners.hand(message.key, sockets)
            case Withdrawn():
                await self._listeners.withdraw(message.key)
            case Unwatched():
                self.endpoints.drop(message.number)
            case Report():
                await self._answer(message)
            case Leaving():
                self.data.leaving.set()
                self._listeners.successor = message.replaced

    def _publish(
        self, value: HandedCredentials | Policy | HandedConfirmation | SourceIntentions | DenyList
    ) -> None:
        match value:
            case HandedCredentials():
                self.snapshot.credentials.publish(taken_up(value))
            case Policy():
                self.snapshot.policy.publish(value)
            case HandedConfirmation():
                self.snapshot.confirmed.publish(confirmation_of(value))
            case SourceIntentions():
                self.snapshot.source_intentions.publish(value)
            case DenyList():
                self.snapshot.deny_list.publish(value)

    async def _place(self, after: Registration) -> None:
        before = self.snapshot.registration.value
        self.snapshot.registration.publish(after)
        if before is None:
            await self.data.bind(after)
        else:
            await self.data.reconciler.change(after)

    async def _answer(self, asked: Report) -> None:
        report = self.data.reporting(rows=asked.rows).run_now()
        await self._send(reported(report, asked.number, lines_lost=self.log.lost))
        if self._on_first_report is not None:
            self._on_first_report()
            self._on_first_report = None

    async def _send(self, message: Reported | WorkerRequest) -> None:
        await self._channel.send(msgspec.json.encode(message))

    # --- requests to the control process ---

    def _say(self, message: WorkerRequest) -> None:
        self._to_say[message] = None  # a repetition before it is sent is dropped
        self._has_message.set()

    async def _send_requests(self) -> None:
        try:
            while True:
                await self._has_message.wait()
                self._has_message = trio.Event()
                messages, self._to_say = list(self._to_say), {}
                for message in messages:
                    await self._send(message)
        except ChannelClosed:
            pass  # `_receive_messages` finds out too, and ends the worker

    # --- the end ---

    async def _finish(self) -> ExitCode:
        cut = await self._cut()
        report = self.data.reporting(rows=False).run_now()
        with suppress(ChannelClosed):
            await self._send(reported(report, 0, lines_lost=self.log.lost, cut=cut))
        return ExitCode.CLEAN

    async def _abandoned(self) -> ExitCode:
        self.log.draining("the control process is gone", self.data.live(), self._drain_seconds)
        await self._close_listeners()
        with trio.move_on_after(self._drain_seconds):
            await self.data.ledger.empty()
        self.log.drained(await self._cut())
        return ExitCode.FAILED

    async def _cut(self) -> int:
        await self._close_listeners()
        return await self.data.cut()

    async def _close_listeners(self) -> None:
        await self._listeners.close_all()
        self._listeners.close_handed()


def share(limit: int | None, workers: int) -> int | None:
    """Return one worker's share of a limit for all, rounded up, so that each has at least 1."""
    return None if limit is None else -(-limit // workers)


def shared_out(registration: Registration, workers: int) -> Registration:
    """Return the registration with one worker's share of each limit."""
    return replace(
        registration,
        max_inbound_connections=share(registration.max_inbound_connections, workers),
        upstreams=tuple(
            replace(
                upstream,
                max_connections=share(upstream.max_connections, workers),
                max_pending=share(upstream.max_pending, workers),
                warm=share(upstream.warm, workers) or 0,
            )
            for upstream in registration.upstreams
        ),
    )


def _share_of_settings(welcome: Welcome) -> Settings:
    """Return the agent's settings with this worker's share of each limit."""
    settings = welcome.settings
    most = share(settings.max_connections, welcome.workers) or 0
    return replace(settings, max_connections=most, deny_file=None)
