"""Serves a caller's usual requests in the relay's loop: a request costs no task, no wait and no deadline.

The task of the connection has the relay watch both legs and sleeps. Each readiness is one step: a request is
read, judged (`front.py`) and sent, a part of its body is sent, or an answer is passed on. An app on the same
machine is dialled in such a step too, as for a stream of a tunnel. Whatever the front does not take, and
whatever would block, ends the watch and wakes the task with what is there (`Unusual`), so that it goes on
from exactly that point: nothing is read twice from a socket, and nothing is sent twice.

* The caller's leg is watched during an exchange too. A caller that leaves meanwhile, or that sends more than
  CHUNK bytes of its next requests, wakes the task.
* Requests that have come together are served one after another; the next is read and judged when the answer
  to the one before has been sent.
* An app that says anything before the request's body has come whole wakes the task, which sends both ways at
  once.
* After a request with a body its connection to the app is closed when the app has ended it, or for the next
  request: the side that ends first has the address in TIME_WAIT, and our ports would run out.
"""

from __future__ import annotations

from dataclasses import dataclass

import trio

from agent.connections.connection import Connection
from agent.connections.ledger import Ledger
from agent.http1.request_reader import ParsedRequest
from agent.inbound.app_connection import AppConnection, AppConnections
from agent.inbound.front import Front
from agent.relay.relay import Relay, Watching
from agent.relay.splice import READ
from agent.relay.streams import CHUNK, WatchedStream


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusual:
    """What is there when the loop has given the connection back; without any of it, the loop was never begun.

    `received`: bytes of the caller that were not taken as a request. `under_way`: the request that the app is
    serving, of which `unsent` is still to be sent before what comes of its body, and `answer` the first bytes
    of the answer: empty at the app's end, None if nothing has come. `owed`: the rest of a whole answer, still
    to be sent to the caller.
    """

    received: bytes = b""
    under_way: ParsedRequest | None = None
    unsent: bytes = b""
    answer: bytes | None = None
    owed: bytes = b""


class UsualRequests:
    """One caller's connection while the relay's loop serves it."""

    __slots__ = (
        *("_app_watch", "_apps", "_caller", "_connection", "_failure", "_front", "_last", "_ledger"),
        *("_left", "_parsed", "_relay", "_task"),
    )

    def __init__(
        self,
        caller: WatchedStream,
        front: Front,
        apps: AppConnections,
        *,
        connection: Connection,
        ledger: Ledger,
        relay: Relay,
    ) -> None:
        self._caller = caller
        self._front = front
        self._apps = apps
        self._connection = connection
        self._ledger = ledger
        self._relay = relay
        self._app_watch: tuple[int, Watching] | None = None
        self._parsed: ParsedRequest | None = None  # the request that the app is serving
        self._left: Unusual | None = None
        self._failure: Exception | None = None
        self._task: trio.lowlevel.Task | None = None
        self._last = 0.0  # when a request or an answer has come last, by trio's clock

    async def serve(self, idle_seconds: float) -> Unusual | None:
        """Serve usual requests until something else is left to do.

        None if the caller has sent no request for that long.
        """
        self._last = trio.current_time()
        while True:
            with trio.move_on_at(self._last + idle_seconds):
                return await self._until_unusual()
            if self._parsed is not None:  # an answer may take as long as it takes
                self._last = trio.current_time()
            elif trio.current_time() >= self._last + idle_seconds:
                return None

    async def _until_unusual(self) -> Unusual:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._left, self._failure = None, None
        self._caller.watch(self._relay, self._on_caller, self._on_failure)
        if self._apps.current is not None:
            self._watch_app(self._apps.current)

        def cancel(_: object) -> trio.lowlevel.Abort:
            self._unwatch()
            return trio.lowlevel.Abort.SUCCEEDED

        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(cancel)
        return self._result()

    def _result(self) -> Unusual:
        if self._failure is not None:
            raise self._failure
        assert self._left is not None  # one of both has woken the task
        return self._left

    def _watch_app(self, app: AppConnection) -> None:
        fd = app.stream.sock.fileno()
        watching = self._relay.attach(fd, self._on_app, self._on_failure)
        watching.want(READ)
        self._app_watch = fd, watching

    def _unwatch(self) -> None:
        self._caller.unwatch()
        self._unwatch_app()

    def _unwatch_app(self) -> None:
        if self._app_watch is not None:
            self._relay.detach(*self._app_watch)
            self._app_watch = None

    def _wake(self) -> None:
        self._unwatch()
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)

    def _leave(self, unusual: Unusual) -> None:
        self._parsed = None
        self._left = unusual
        self._wake()

    def _on_failure(self, error: Exception) -> None:
        self._failure = error
        self._wake()

    # Steps, each at a readiness.

    def _on_caller(self, _events: int) -> None:
        received = self._caller.receive_nowait()
        if received is None:  # a part of a record
            return
        if self._parsed is None:
            self._begin(received)
        else:
            self._during_exchange(self._parsed, received)

    def _begin(self, received: bytes) -> None:
        """Read, judge and send the request that these bytes begin with, or leave all of them to the task."""
        allowed = self._front.request(received)
        app = None if allowed is None else self._take_app(allowed.parsed)
        if allowed is None or app is None:
            self._leave(Unusual(received=received))
            return
        parsed = self._parsed = allowed.parsed
        self._last = self._relay.turned
        self._connection.request = parsed.request  # from now on a change of intentions judges it again
        self._ledger.request_passed(allowed.verdict.reason)
        self._send(app, parsed, parsed.head + parsed.body.start(), answer_of_failure=b"")

    def _take_app(self, parsed: ParsedRequest) -> AppConnection | None:
        """Return the connection to the app for a request, watched; None if that takes a wait."""
        apps, last = self._apps, not parsed.bodiless
        if (kept := apps.kept(last=last)) is not None:
            return kept
        self._unwatch_app()
        app = apps.dial_at_once(last=last)
        if app is not None:
            self._watch_app(app)
        return app

    def _drop_app(self) -> None:
        self._unwatch_app()
        self._apps.drop()

    def _send(
        self, app: AppConnection, parsed: ParsedRequest, data: bytes, *, answer_of_failure: bytes | None
    ) -> None:
        """Send a part of a request; leave what does not go at once to the task."""
        unsent = app.send_nowait(data, last=parsed.body.ended)
        if unsent is None:
            self._leave(Unusual(under_way=parsed, answer=answer_of_failure))
        elif unsent or len(parsed.body.rest) >= CHUNK:
            self._leave(Unusual(under_way=parsed, unsent=unsent))

    def _during_exchange(self, parsed: ParsedRequest, received: bytes) -> None:
        """Send a part of the body, or keep bytes of the next requests.

        Leave if the caller has ended or failed, or has sent too much.
        """
        body, app = parsed.body, self._apps.current
        if body.ended:
            body.take(received)
            if not received or len(body.rest) >= CHUNK:
                self._leave(Unusual(under_way=parsed))
        elif received and app is not None:
            # After a failure the app may have answered already, which the task then reads.
            self._send(app, parsed, body.take(received), answer_of_failure=None)
        else:  # the end comes to the task again, which says that the body was cut off
            self._leave(Unusual(under_way=parsed))

    def _on_app(self, _events: int) -> None:
        app, parsed = self._apps.current, self._parsed
        assert app is not None  # it is watched
        if parsed is None:  # its end, or bytes that answer nothing
            self._drop_app()
            return
        data = app.stream.receive_nowait()
        if data is None:
            return
        self._last = self._relay.turned
        answer = self._front.answer(data, parsed.method) if parsed.body.ended else None
        if answer is None:
            self._leave(Unusual(under_way=parsed, answer=data))
            return
        app.answered, app.keep_alive = True, answer.keep_alive
        sent = self._caller.send_nowait(memoryview(answer.written))
        owed, received = answer.written[sent:], parsed.body.rest
        if owed:
            self._leave(Unusual(received=received, owed=owed))
            return
        self._parsed = self._connection.request = None
        if received:
            self._begin(received)
