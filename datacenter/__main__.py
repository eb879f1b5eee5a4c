"""`sidecar datacenter`: one embedded datacenter as a process."""

from __future__ import annotations

import logging
import os
import random
import signal
import socket
import sys
from collections.abc import MutableMapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import trio

from agent.process.memory import settle
from agent.process.sink import Sink, never_waiting, replace_closed_streams
from datacenter.assembly import assembled
from datacenter.config.options import UsageMistake, parse_flags, read_settings, usage
from datacenter.data_directory import require_readable
from datacenter.http.server import CannotListen, bound_address, open_listener, serve_http
from datacenter.services.agent_self import require_own_store
from datacenter.state.database import StoreUnavailable
from datacenter.state.settings import Settings
from datacenter.state.store import Store

_CLEAN, _FAILED, _USAGE, _CONFIGURATION = 0, 1, 64, 78
_DATABASE = "datacenter.db"

_logger = logging.getLogger("datacenter")


def main(argv: Sequence[str], environ: MutableMapping[str, str]) -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    replace_closed_streams()
    with never_waiting() as sink:
        return _main(argv, environ, sink)


def _main(argv: Sequence[str], environ: MutableMapping[str, str], sink: Sink) -> int:
    if any(word.lstrip("-") in {"h", "help"} for word in argv):
        sys.stdout.write(usage())
        return _CLEAN
    try:
        settings, mistakes = read_settings(parse_flags(argv))
    except UsageMistake as mistake:
        sys.stderr.write(f"sidecar datacenter: {mistake}; see `sidecar help datacenter`\n")
        return _USAGE
    if settings is None:
        sys.stderr.writelines(f"sidecar datacenter: {mistake}\n" for mistake in mistakes)
        return _CONFIGURATION
    _set_up_logging(settings)
    try:
        return _serve(settings, sink, environ.pop("NOTIFY_SOCKET", ""))
    except (StoreUnavailable, CannotListen) as error:
        sys.stderr.write(f"sidecar datacenter: {error}\n")
        return _CONFIGURATION


def _serve(settings: Settings, sink: Sink, notify_address: str) -> int:
    assert settings.data_dir is not None, "the options require it"
    path = settings.data_dir / _DATABASE
    store = Store(path)
    try:
        require_readable(path, store)
        require_own_store(settings, store)
        listener = open_listener(settings.http_addr)
        return trio.run(_run, as_bound(settings, listener), store, listener, sink, notify_address)
    finally:
        store.close()


def as_bound(settings: Settings, listener: socket.socket) -> Settings:
    """Return the settings with the port that replaces 0, and the address for other datacenters."""
    bound = bound_address(listener)
    port = bound.rpartition(":")[2]
    host = f"[{settings.node_address}]" if ":" in settings.node_address else settings.node_address
    own = "" if bound.startswith("unix://") else f"http://{host}:{port}"
    return replace(settings, http_addr=bound, advertise_addr=settings.advertise_addr or own)


async def _run(
    settings: Settings, store: Store, listener: socket.socket, sink: Sink, notify_address: str
) -> int:
    rng = random.SystemRandom()
    async with assembled(settings, store, clock=_wall_clock, rng=rng, lost_lines=lambda: sink.lost) as alive:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_keep_up, sink)
                await nursery.start(serve_http, alive.frame, listener)
                settle()
                # This line is what scripts wait for; it is not a log event and has no level.
                sys.stderr.write(f"datacenter {settings.name} listening on {settings.http_addr}\n")
                notify(notify_address, "READY=1")
                await anext(signals)
                notify(notify_address, "STOPPING=1")
                nursery.cancel_scope.cancel()
    return _CLEAN


async def _keep_up(sink: Sink) -> None:
    """Write log lines that had to wait for a reader, and log how many were lost."""
    while True:
        _logger.warning("%d lines of the log were lost", await sink.caught_up())


def _wall_clock() -> datetime:
    return datetime.now(UTC)


def notify(address: str, message: str) -> None:
    """Notify systemd if it has asked for that: sd_notify(3)."""
    if not address:
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(message.encode(), name)
    except OSError as error:
        _logger.warning("systemd cannot be notified: %s", error.strerror)


def _set_up_logging(settings: Settings) -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        force=True,
    )
    for library in ("httpcore2", "asyncio"):
        logging.getLogger(library).setLevel(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))  # noqa: TID251  the one place that reads it for this command
