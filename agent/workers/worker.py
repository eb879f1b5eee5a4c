"""A worker: listeners, handshakes, verdicts and the relay, by what the control process hands over.

It watches nothing and asks nobody. What it is told it carries out in the order in which it comes: a report is
thus also the word that everything before it is done. Signals are the control process's affair; when that is
gone, the worker lets nobody in any more, gives its connections their time, and ends.
"""

from __future__ import annotations

import os
import signal
import socket
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from random import Random
from typing import TextIO

import msgspec
import trio

from agent import VERSION
from agent.ageing import age
from agent.base.clock import now
from agent.base.exits import ExitCode
from agent.base.phase import Phase
from agent.config.options import LogLevel
from agent.config.registration import Registration
from agent.connections.ledger import Ledger
from agent.connections.reauthorize import Judge
from agent.connections.records import CloseReason
from agent.consul.api import Consul
from agent.consul.http import Client
from agent.consul.token import TokenSource
from agent.observe.events import Journal
from agent.observe.log import Log
from agent.outbound.warm_pools import keep_warm
from agent.parts import Parts
from agent.policy.deny_list import DenyList
from agent.policy.intentions import Intentions
from agent.policy.source_intentions import Outgoing
from agent.process.memory import give_back, settle
from agent.proxy.dataplane import Reactions
from agent.proxy.reconcile import assemble
from agent.relay.relay import Relay
from agent.workers.channel import Channel, ChannelClosed
from agent.workers.endpoints import HandedFeeds
from agent.workers.listeners import HandedListeners
from agent.workers.messages import (
    FORMAT,
    Finish,
    HandedCredentials,
    HandedEndpoints,
    HandedSockets,
    Order,
    Report,
    Unwatched,
    Verbosity,
    Welcome,
    Withdrawn,
    decode,
    taken_up,
)
from agent.workers.reports import AskedAgain, GatewaysWanted, report

CUT_SECONDS = 5.0  # for connections that are cut to take note


def main(words: Sequence[str], err: TextIO) -> int:
    """Serve on the descriptor that is the only word."""
    if len(words) != 1 or not words[0].isdigit():
        err.write("sidecar: `worker` is begun by an agent with `workers`, not by hand\n")
        return ExitCode.USAGE
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.set_inheritable(int(words[0]), False)
    channel = Channel(socket.socket(fileno=int(words[0])))
    return trio.run(serve, channel, err, now)


async def serve(channel: Channel, err: TextIO, clock: Callable[[], datetime]) -> ExitCode:
    """One worker's life; its exit code."""
    try:
        welcome = decode((await channel.receive())[0])
    except ChannelClosed:  # it has changed its mind
        return ExitCode.CLEAN
    if not isinstance(welcome, Welcome) or (welcome.version, welcome.format) != (VERSION, FORMAT):
        text = f"the agent is of another version than {VERSION}, which is installed now; restart it"
        Log(err, clock).write(LogLevel.ERROR, "worker.mismatch", detail=text)
        return ExitCode.FAILED
    worker = Worker(channel, welcome, err, clock)
    try:
        return await worker.run()
    except Exception as error:  # noqa: BLE001 - a bug: what is known of it is told, and the process ends
        worker.parts.journal.crashed("".join(traceback.format_exception(error)))
        return ExitCode.FAILED


class Worker:
    """One of several; its parts are those of an agent without watches."""

    def __init__(
        self, channel: Channel, welcome: Welcome, err: TextIO, clock: Callable[[], datetime]
    ) -> None:
        self._channel = channel
        self._workers = welcome.workers
        self._reactions = Reactions()
        self._to_say: dict[AskedAgain | GatewaysWanted, None] = {}
        self._has_word = trio.Event()
        self._settled = False
        self.feeds = HandedFeeds(self._say)
        self.parts = _parts(welcome, self._reactions, err, clock)

    async def run(self) -> ExitCode:
        """To the end."""
        with Relay() as relay:
            async with trio.open_nursery() as watches:
                async with trio.open_nursery() as connections:
                    async with trio.open_nursery() as loops:
                        self._assemble(relay, loops, connections)
                        watches.start_soon(self.parts.journal.keep_up)
                        watches.start_soon(self._judge.run)
                        watches.start_soon(age, self.parts.intentions, self.parts.clock)
                        watches.start_soon(keep_warm, self.parts)
                        watches.start_soon(give_back, lambda: self.parts.ledger.count)
                        watches.start_soon(self._speak)
                        code = await self._obey()
                    connections.cancel_scope.deadline = trio.current_time() + CUT_SECONDS
                watches.cancel_scope.cancel()
        return code

    def _assemble(self, relay: Relay, loops: trio.Nursery, connections: trio.Nursery) -> None:
        parts = self.parts
        parts.relay = relay
        self._judge = judge = Judge(
            parts.ledger,
            parts.intentions,
            parts.contexts,
            parts.clock,
            parts.journal.rejudged,
            grace=parts.settings.expired_peer_grace,
            deny_list=parts.deny_file.latest,
            outgoing=parts.outgoing,
        )
        self._reactions.attach(parts, judge)
        self.listeners = HandedListeners(loops, connections, parts.journal)
        self._following = assemble(
            parts,
            relay,
            listeners=self.listeners,
            directory=self.feeds,
            connections=connections,
            events=parts.journal,
            inherited=None,
            watch_intentions=lambda: None,
        )

    # --- what it is told ---

    async def _obey(self) -> ExitCode:
        try:
            while True:
                frame, descriptors = await self._channel.receive()
                order = decode(frame)
                if isinstance(order, Finish):
                    return await self._finish()
                await self._carry_out(order, [socket.socket(fileno=one) for one in descriptors])
        except ChannelClosed:
            return await self._abandoned()

    async def _carry_out(self, order: Order, sockets: Sequence[socket.socket]) -> None:
        parts = self.parts
        match order:
            case DenyList():
                parts.deny_file.latest.publish(order)
            case Registration():
                await self._place(shared_out(order, self._workers))
            case HandedCredentials():
                parts.contexts.publish(taken_up(order))
            case Intentions():
                parts.intentions.publish(order)
            case Outgoing():
                parts.outgoing.publish(order)
            case HandedEndpoints():
                self.feeds.take(order)
            case Verbosity():
                parts.journal.take_level(order.level)
            case HandedSockets():
                await self.listeners.hand(order.key, sockets)
            case Withdrawn():
                await self.listeners.withdraw(order.key)
            case Unwatched():
                self.feeds.drop(order.number)
            case Report():
                await self._answer(order)

    async def _place(self, after: Registration) -> None:
        before = self.parts.placement.value
        self.parts.placement.publish(after)
        if before is None:
            await self._following.bind(after)
            self.parts.phase = Phase.SERVING
        else:
            await self._following.change(before, after)

    async def _answer(self, asked: Report) -> None:
        told = report(self.parts, asked.number, rows=asked.rows)
        await self._channel.send(msgspec.json.encode(told))
        if not self._settled:
            self._settled = True
            settle()

    # --- what it says unasked ---

    def _say(self, word: AskedAgain | GatewaysWanted) -> None:
        self._to_say[word] = None  # said twice before it is heard, it is said once
        self._has_word.set()

    async def _speak(self) -> None:
        try:
            while True:
                await self._has_word.wait()
                self._has_word = trio.Event()
                words, self._to_say = list(self._to_say), {}
                for word in words:
                    await self._channel.send(msgspec.json.encode(word))
        except ChannelClosed:
            pass  # whoever listens for orders knows too

    # --- the end ---

    async def _finish(self) -> ExitCode:
        cut = await self._cut()
        told = report(self.parts, 0, rows=False, cut=cut)
        with suppress(ChannelClosed):
            await self._channel.send(msgspec.json.encode(told))
        return ExitCode.CLEAN

    async def _abandoned(self) -> ExitCode:
        parts, seconds = self.parts, self.parts.settings.drain_seconds
        parts.phase = Phase.DRAINING
        parts.journal.draining("the control process is gone", len(parts.ledger.live()), seconds)
        await self._close_listeners()
        with trio.move_on_after(seconds):
            await parts.ledger.empty()
        parts.journal.drained(await self._cut())
        return ExitCode.FAILED

    async def _cut(self) -> int:
        await self._close_listeners()
        cut = self.parts.ledger.close_all(CloseReason.DRAIN_DEADLINE)
        with trio.move_on_after(CUT_SECONDS):
            await self.parts.ledger.empty()
        return cut

    async def _close_listeners(self) -> None:
        await self.listeners.close_all()
        self.listeners.close_handed()


def share(limit: int | None, workers: int) -> int | None:
    """One worker's part of a limit of all, rounded up: no worker is without."""
    return None if limit is None else -(-limit // workers)


def shared_out(registration: Registration, workers: int) -> Registration:
    """The registration with one worker's part of each limit."""
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


def _parts(welcome: Welcome, reactions: Reactions, err: TextIO, clock: Callable[[], datetime]) -> Parts:
    told = welcome.settings
    told = replace(told, max_connections=share(told.max_connections, welcome.workers) or 0, deny_file=None)
    journal = Journal(
        err,
        clock,
        level=told.log_level,
        form=told.log_format,
        connections=told.connection_log,
        worker=welcome.slot,
    )
    return Parts(
        settings=told,
        clock=clock,
        rng=Random(),  # noqa: S311 - the choice of endpoints, nothing secret
        journal=journal,
        consul=Consul(Client(_nobody, host=""), TokenSource(None, None)),
        token=TokenSource(None, None),
        ledger=Ledger(clock, reactions),
        started=clock(),
    )


async def _nobody() -> trio.abc.Stream:
    raise ConnectionRefusedError("a worker asks nobody")
