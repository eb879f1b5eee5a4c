"""The log of one agent: one function per event, one line per call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from agent.base.clock import Clock
from agent.base.exits import ExitCode
from agent.config.options import LogLevel
from agent.connections.connection import Connection
from agent.connections.records import Audited, FailedAttempt, Finished, RefusedRequest
from agent.log.connection_log import fields
from agent.log.log import DEFAULT_OPTIONS, LogOptions
from agent.log.next_steps import after_exit
from agent.log.watch_events import WatchJournal
from agent.net.admission import Admission, Overflow
from agent.net.inherited import SocketComplaint
from agent.outbound.reasons import OutboundReason
from agent.outbound.warm_connection import ORDINARY
from agent.relay.splice import Ending
from upstreams.route import Candidate
from upstreams.spec import Upstream

_REFUSED_BY_CALLEE = (OutboundReason.REFUSED_BY_PEER.value, OutboundReason.DENIED_BY_PEER.value)


class Journal(WatchJournal):
    """The log of one agent, one function per event."""

    def __init__(self, stream: TextIO, clock: Clock, options: LogOptions = DEFAULT_OPTIONS) -> None:
        super().__init__(stream, clock, options)

    # --- the process ---

    def started(self, version: str, pid: int, identity: str, consul: str) -> None:
        """The settings are valid, and the agent starts."""
        self.write(LogLevel.INFO, "started", version=version, pid=pid, identity=identity, consul=consul)

    def files_awaited(self, detail: str) -> None:
        """The start waits for files that are not there, or not whole."""
        self.write(LogLevel.WARN, "files.awaited", detail=detail)

    def note(self, text: str) -> None:
        """A setting is unusual, but no mistake."""
        self.write(LogLevel.WARN, "settings.note", text=text)

    def take_level(self, level: LogLevel) -> None:
        """Change the level until the process ends; the line is written at the more verbose of both levels."""
        before = self.level
        if before is level:
            return
        self.level = min(before, level, key=list(LogLevel).index)
        self.write(self.level, "log.level", before=before.value, now=level.value)
        self.level = level

    def reloaded(self, changed: Sequence[str], waiting: Sequence[str]) -> None:
        """The settings were read anew: `changed` are in force, `waiting` take a restart."""
        level = LogLevel.WARN if waiting else LogLevel.INFO
        self.write(level, "settings.reloaded", changed=", ".join(changed), needs_restart=", ".join(waiting))

    def reload_refused(self, mistakes: Sequence[str]) -> None:
        """The settings were read anew and are wrong; the agent goes on by those it has."""
        self.write(LogLevel.ERROR, "settings.refused", mistakes="; ".join(mistakes))

    def unverified(self) -> None:
        """The settings switch off the verification of the Consul agent's certificate."""
        self.write(LogLevel.WARN, "consul.unverified", detail="CONSUL_HTTP_SSL_VERIFY is off")

    def ready(self, seconds: float | None = None) -> None:
        """The agent can serve: for the first time, `seconds` after its start, or again."""
        self.write(LogLevel.INFO, "ready", seconds=None if seconds is None else round(seconds, 3))

    def unready(self, missing: Sequence[str]) -> None:
        """The agent lacks something that it needs to serve all, at the end of its start or later."""
        self.write(LogLevel.WARN, "unready", missing=", ".join(missing))

    def upgrade_begun(self) -> None:
        """Another program is started, which is to take the service over."""
        self.write(LogLevel.INFO, "upgrade.begun")

    def upgrade_failed(self, detail: str) -> None:
        """That program cannot serve; this one goes on."""
        self.write(LogLevel.ERROR, "upgrade.failed", detail=detail)

    def upgraded(self, pid: int) -> None:
        """Process `pid` has taken the service over; the connections that are left here end in time."""
        self.write(LogLevel.INFO, "upgraded", by=pid)

    def silent(self, failure: str) -> None:
        """What should answer does not, so that the watchdog is not fed; or it answers again."""
        if failure:
            self.write(LogLevel.ERROR, "watchdog.unfed", detail=failure)
        else:
            self.write(LogLevel.INFO, "watchdog.fed")

    def leaving(self, why: str, seconds: float) -> None:
        """Consul sends no more callers to the agent, which accepts them for another `seconds`."""
        self.write(LogLevel.INFO, "leaving", why=why, seconds=seconds)

    def draining(self, why: str, live: int, seconds: float | None) -> None:
        """The agent accepts no more callers; live connections have `seconds` to end, None for ever."""
        self.write(LogLevel.INFO, "draining", why=why, live=live, seconds=seconds)

    def drained(self, cut: int) -> None:
        """The drain is over; `cut` connections were closed by it."""
        level = LogLevel.WARN if cut else LogLevel.INFO
        self.write(level, "drained", cut=cut)

    def crashed(self, trace: str) -> None:
        """A bug has ended the process; systemd starts another one."""
        self.write(LogLevel.ERROR, "crashed", trace=trace)

    def exiting(self, code: ExitCode, detail: str) -> None:
        """The process ends because it cannot run or go on, or was told to meanwhile: its last line."""
        self.write(
            LogLevel.INFO if code is ExitCode.CLEAN else LogLevel.ERROR,
            "exit",
            code=code.value,
            reason=code.name.lower(),
            detail=detail,
            next=after_exit(code),
        )

    # --- workers ---

    def worker_serving(self, worker: int, pid: int) -> None:
        """A worker process accepts callers."""
        self.write(LogLevel.INFO, "worker.serving", slot=worker, pid=pid)

    def worker_ended(self, worker: int, reason: str, detail: str, lost: int, pause: float) -> None:
        """A worker died with about `lost` connections; its replacement starts after `pause` seconds."""
        self.write(
            LogLevel.ERROR, "worker.ended", slot=worker, reason=reason, detail=detail, lost=lost, pause=pause
        )

    # --- listeners ---

    def listening(self, purpose: str, address: str) -> None:
        """A listener accepts callers."""
        self.write(LogLevel.INFO, "listening", purpose=purpose, address=address)

    def listening_ended(self, purpose: str, address: str) -> None:
        """A listener no longer accepts callers."""
        self.write(LogLevel.INFO, "listening.ended", purpose=purpose, address=address)

    def listening_failed(self, purpose: str, detail: str) -> None:
        """An address cannot be bound; the agent tries again."""
        self.write(LogLevel.ERROR, "listening.failed", purpose=purpose, detail=detail)

    def socket_complaint(self, complaint: SocketComplaint, /) -> None:
        """A socket of systemd serves no caller, or not where callers look for it."""
        self.write(
            LogLevel.WARN,
            "socket.complaint",
            reason=complaint.reason.value,
            name=complaint.name,
            address=complaint.address,
            detail=complaint.detail,
        )

    # --- connections (agent.connections.connection.ConnectionEvents, agent.net.accept.AdmissionEvents) ---

    def opened(self, connection: Connection, /) -> None:
        """Application bytes begin to flow on a connection."""
        if not self.wants(LogLevel.DEBUG):
            return
        self.write(
            LogLevel.DEBUG,
            "connection.opened",
            id=connection.id,
            direction=connection.direction.value,
            caller=connection.caller,
            upstream=connection.upstream,
            peer="" if connection.peer is None else str(connection.peer.id),
            dialled=connection.dialled,
        )

    def closed(self, finished: Finished, /) -> None:
        """A connection has ended; an orderly end is logged at debug level, unless `connection_log` is set.

        A callee's refusal is a warning.
        """
        reason = finished.reason
        if reason is Ending.CLEAN and not self._options.connections:
            self._ended(LogLevel.DEBUG, "connection.closed", finished)
        else:
            level = LogLevel.WARN if reason in _REFUSED_BY_CALLEE else LogLevel.INFO
            self._ended(level, "connection.closed", finished)

    def refused(self, finished: Finished, /) -> None:
        """A connection was refused."""
        self._ended(LogLevel.WARN, "connection.refused", finished)

    def tunnel_opened(self, tunnel: Connection, /) -> None:
        """A tunnel takes streams from now on."""
        self.write(
            LogLevel.INFO,
            "tunnel.opened",
            id=tunnel.id,
            direction=tunnel.direction.value,
            caller=tunnel.caller,
            upstream=tunnel.upstream,
            peer="" if tunnel.peer is None else str(tunnel.peer.id),
        )

    def tunnel_ended(self, finished: Finished, /) -> None:
        """A tunnel has ended."""
        self.write(LogLevel.INFO, "tunnel.ended", **fields(finished))

    def request_refused(self, connection: Connection, refused: RefusedRequest, /) -> None:
        """The sidecar has answered an HTTP request instead of the app."""
        self.write(
            LogLevel.WARN,
            "request.refused",
            id=connection.id,
            peer="" if connection.peer is None else str(connection.peer.id),
            method=refused.method,
            target=refused.target,
            status=refused.status,
            reason=refused.reason.value,
            detail=refused.detail,
            rule=refused.rule,
            intention_id=refused.intention,
        )

    def exposed_refused(self, caller: str, path: str, refused: RefusedRequest, /) -> None:
        """The sidecar has answered a request to an exposed path itself."""
        self.write(
            LogLevel.WARN,
            "exposed.refused",
            caller=caller,
            path=path,
            method=refused.method,
            target=refused.target,
            status=refused.status,
            reason=refused.reason.value,
            detail=refused.detail,
        )

    def audited(self, connection: Connection, audited: Audited, /) -> None:
        """Audit mode has allowed what intentions deny."""
        self.write(
            LogLevel.WARN,
            "audit.would_deny",
            id=connection.id,
            peer="" if connection.peer is None else str(connection.peer.id),
            reason=audited.reason.value,
            rule=audited.rule,
            intention_id=audited.intention,
            request=audited.request,
        )

    def attempt_failed(self, connection: Connection, attempt: FailedAttempt, /) -> None:
        """One candidate of an outbound connection has failed."""
        self.write(
            LogLevel.INFO,
            "attempt.failed",
            id=connection.id,
            upstream=connection.upstream,
            endpoint=attempt.endpoint,
            address=attempt.address,
            reason=attempt.reason.value,
            detail=attempt.detail,
        )

    def overflowed(self, admission: Admission, reason: Overflow, /) -> None:
        """A listener is full and turns callers away until there is room."""
        self.write(
            LogLevel.WARN,
            "admission.full",
            reason=reason.value,
            limit=admission.limit,
            live=admission.live,
            unsettled_limit=admission.unsettled_limit,
            unsettled=admission.unsettled,
        )

    def exhausted(self, error: OSError, /) -> None:
        """The system gives no more descriptors or memory; accepting pauses."""
        self.write(LogLevel.ERROR, "admission.exhausted", detail=error.strerror)

    def admin_failed(self, path: str, error: Exception, /) -> None:
        """A request to the admin endpoint has failed, by a bug or for lack of a resource."""
        self.write(LogLevel.ERROR, "admin.failed", path=path, detail=repr(error))

    def _ended(self, level: LogLevel, event: str, finished: Finished) -> None:
        """Log the end of a connection: each one with `connection_log`, else some of a kind."""
        if not self.wants(level):
            return
        if self._options.connections:
            self.write_each(level, event, fields(finished))
        else:
            self.write(level, event, **fields(finished))

    # --- warm connections (agent.outbound.warm_connection.WarmEvents) ---

    def warm_discarded(self, upstream: Upstream, candidate: Candidate, reason: str, detail: str, /) -> None:
        """A warm connection was closed unused; the ordinary reasons are logged at debug level."""
        level = LogLevel.DEBUG if reason in ORDINARY else LogLevel.INFO
        self._warm(level, "upstream.warm_discarded", upstream, str(candidate), reason=reason, detail=detail)

    def warm_failed(self, upstream: Upstream, attempt: FailedAttempt, /) -> None:
        """A warm connection could not be made."""
        reason, address = attempt.reason.value, attempt.address
        self._warm(
            LogLevel.INFO,
            "upstream.warm_failed",
            upstream,
            attempt.endpoint,
            address=address,
            reason=reason,
            detail=attempt.detail,
        )

    def _warm(
        self, level: LogLevel, event: str, upstream: Upstream, endpoint: str, *, reason: str, **more: str
    ) -> None:
        if self.wants(level):
            common = {"upstream": str(upstream.destination), "endpoint": endpoint, "reason": reason, **more}
            self.write(level, event, **common)
