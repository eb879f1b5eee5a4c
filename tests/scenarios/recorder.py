"""What the ledgers and listeners of a scenario told."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.connections.connection import Connection
from agent.connections.records import Audited, FailedAttempt, Finished, RefusedRequest
from agent.net.admission import Admission, Overflow
from tests.support.faults import NoFaults


@dataclass(slots=True)
class Recorder(NoFaults):
    """What the ledgers and listeners told."""

    opened_ids: list[int] = field(default_factory=list)
    closed_ones: list[Finished] = field(default_factory=list)
    refused_ones: list[Finished] = field(default_factory=list)
    attempts: list[FailedAttempt] = field(default_factory=list)
    refused_requests: list[RefusedRequest] = field(default_factory=list)
    exposed_ones: list[RefusedRequest] = field(default_factory=list)
    audits: list[Audited] = field(default_factory=list)
    tunnels: list[str] = field(default_factory=list)  # the reasons of their ends; empty: it has begun
    overflows: int = 0
    shortages: list[OSError] = field(default_factory=list)

    def opened(self, connection: Connection, /) -> None:
        self.opened_ids.append(connection.id)

    def closed(self, finished: Finished, /) -> None:
        self.closed_ones.append(finished)

    def refused(self, finished: Finished, /) -> None:
        self.refused_ones.append(finished)

    def tunnel_opened(self, tunnel: Connection, /) -> None:
        self.tunnels.append("")

    def tunnel_ended(self, finished: Finished, /) -> None:
        self.tunnels.append(finished.reason.value)

    def request_refused(self, connection: Connection, refused: RefusedRequest, /) -> None:
        self.refused_requests.append(refused)

    def exposed_refused(self, caller: str, path: str, refused: RefusedRequest, /) -> None:
        self.exposed_ones.append(refused)

    def audited(self, connection: Connection, audited: Audited, /) -> None:
        self.audits.append(audited)

    def attempt_failed(self, connection: Connection, attempt: FailedAttempt, /) -> None:
        self.attempts.append(attempt)

    def overflowed(self, admission: Admission, reason: Overflow, /) -> None:
        self.overflows += 1

    def exhausted(self, error: OSError, /) -> None:
        self.shortages.append(error)
