"""The listener: Hypercorn's trio worker reads and writes HTTP, and the frame answers.

A client that leaves ends its blocked request at once, since a datacenter has many watchers whose requests
last for minutes. A body is read up to a limit before the request is handled.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import stat
from email.utils import format_datetime
from pathlib import Path

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from datacenter.http.connections import serve_connections
from datacenter.http.frame import TEXT, Answers, RawReply, RawRequest
from datacenter.http.hosts import host_of, own_hosts

LARGEST_BODY = 1 << 20  # bytes; a registration of a thousand upstreams is a tenth of this
_LARGEST_DISCARD = 16 * LARGEST_BODY  # read on after the bound, so that the refusal is not lost in a reset
_FIELD_NAME = re.compile(
    rb"[0-9A-Za-z-]{1,256}"
)  # others are folded into these by gateways (RFC 3875 §4.1.18)
_DRAIN_SECONDS = 0.5
_IDLE_SECONDS = 5.0  # Hypercorn keeps the descriptor of an idle client that has left for so long
_QUIET_SECONDS = 10.0  # between two lines about the same shortage


class ShortageOfOurs(logging.Filter):
    """Replaces trio's ten tracebacks a second during a shortage by one line in ten seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._last = -_QUIET_SECONDS

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is written, and remove its traceback."""
        if record.created - self._last < _QUIET_SECONDS:
            return False
        self._last = record.created
        error = record.exc_info[1] if record.exc_info else None
        why = (isinstance(error, OSError) and error.strerror) or record.getMessage()
        record.msg, record.args, record.exc_info = f"no connection is accepted for now: {why}", (), None
        return True


_SHORTAGE = ShortageOfOurs()


class CannotListen(Exception):
    """The address cannot be bound; the text names it and says why."""


def open_listener(address: str) -> socket.socket:
    """Return a listening socket on `host:port` or `unix:///path`. Raises CannotListen."""
    try:
        if address.startswith("unix://"):
            return _unix_listener(Path(address.removeprefix("unix://")))
        host, _, port = address.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=512)
    except (OSError, ValueError) as error:
        raise CannotListen(f"cannot listen on {address}: {_reason(error)}") from error


def bound_address(listener: socket.socket) -> str:
    """Return the listener's address in the form of `-http-addr`, with the port that it has."""
    if listener.family == socket.AF_UNIX:
        return f"unix://{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def serve_http(
    frame: Answers, listener: socket.socket, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve until cancelled, and close the listener; requests under way then have half a second."""
    config = Config()
    config.include_server_header = False
    config.include_date_header = False  # ours is by the datacenter's clock
    config.errorlog = logging.getLogger("datacenter.http")
    config.errorlog.setLevel(logging.WARNING)  # its INFO lines repeat what we say ourselves
    logging.getLogger("trio.serve_listeners").addFilter(_SHORTAGE)  # added once, however often that is called
    config.graceful_timeout = _DRAIN_SECONDS
    config.keep_alive_timeout = _IDLE_SECONDS
    most = frame.dc.settings.http_max_conns_per_client
    application = Starlette(routes=[Mount("/", app=_Application(frame))])
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        try:
            nursery.start_soon(_run, application, config, listener, most, stop)
            task_status.started()
            await trio.sleep_forever()
        finally:
            stop.set()


async def _run(
    application: Starlette, config: Config, listener: socket.socket, most: int, stop: trio.Event
) -> None:
    app = ASGIWrapper(application)  # type: ignore[arg-type]  # two spellings of ASGI's types, Starlette's and Hypercorn's
    # Ended by the event: cancelled outright, the server would cut answers that are being written.
    with trio.CancelScope(shield=True):
        await serve_connections(app, config, listener, most, stop)


class _Application:
    """The ASGI side of the frame."""

    def __init__(self, frame: Answers) -> None:
        self._frame = frame
        self._hosts = own_hosts(frame.dc.settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _read_body(receive)
        if body is None:
            response = Response("Request body too large", 413, media_type=TEXT)
            await response(scope, receive, send)
            return
        refusal = _bad_name(scope) or self._foreign_host(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        raw = RawRequest(
            method=scope["method"],
            path=scope["path"],
            query=scope["query_string"].decode("latin-1"),
            headers={name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
            body=body,
        )
        reply = await self._answer(raw, receive)
        if reply is None:
            return
        date = format_datetime(self._frame.dc.clock(), usegmt=True)
        headers = {**reply.headers, "Date": date, "Content-Length": str(len(reply.body))}
        await Response(reply.body, reply.status, headers)(scope, receive, send)

    async def _answer(self, raw: RawRequest, receive: Receive) -> RawReply | None:
        """Return the answer, or None if the client leaves before there is one."""
        reply = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_gone, receive, nursery.cancel_scope)
            reply = await self._frame.handle(raw)
            # Before the answer is sent: its end wakes the watch, which would cancel Hypercorn's closing.
            nursery.cancel_scope.cancel()
        return reply

    def _foreign_host(self, scope: Scope) -> Response | None:
        """Return a refusal if Host is not ours.

        HTTP/1.0 may have none, and no browser reaches a unix socket.
        """
        named = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), None)
        if scope["server"] is None or named is None:
            return None
        if host_of(named) in self._hosts | {host_of(scope["server"][0])}:
            return None
        return Response(
            f"foreign_host: {named!r} is no name of this datacenter (-http-hosts)", 403, media_type=TEXT
        )


def _bad_name(scope: Scope) -> Response | None:
    """Return a refusal if a field's name has other characters than letters, digits and hyphens."""
    name = next((name for name, _ in scope["headers"] if not _FIELD_NAME.fullmatch(name)), None)
    if name is None:
        return None
    text = f"field_name: {name.decode('latin-1')}: names are letters, digits and hyphens"
    return Response(text, 400, media_type=TEXT)


async def _read_body(receive: Receive) -> bytes | None:
    """Return the body, None if it is over the limit."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        chunk = message.get("body", b"")
        size += len(chunk)
        if size <= LARGEST_BODY:
            chunks.append(chunk)
        if not message.get("more_body", False) or size > _LARGEST_DISCARD:
            return b"".join(chunks) if size <= LARGEST_BODY else None


async def _cancel_when_gone(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _unix_listener(path: Path) -> socket.socket:
    """Bind a unix socket; replace the file of one without a listener."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode) and not _answers(path):
            path.unlink()
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(os.fspath(path))
        listener.listen(512)
    except OSError:
        listener.close()
        raise
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(os.fspath(path)) == 0


def _reason(error: Exception) -> str:
    # Not its strerror, to which the socket module has added an address of its own.
    return os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else str(error)
