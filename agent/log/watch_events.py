"""The log events of Consul and of all watched values: one function per event, one line per call."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TextIO

from agent.base.clock import Clock
from agent.base.containment import Where
from agent.base.watch_status import WatchStatus
from agent.config.options import LogLevel
from agent.consul.watch import WatchCrashed
from agent.log.log import DEFAULT_OPTIONS, Log, LogOptions
from certs.contexts import Contexts
from certs.credentials import OwnFault
from upstreams.endpoints import Endpoint
from upstreams.reach import AddressWarning, DialAddress
from upstreams.spec import Destination, Upstream

MOST_KEPT = 10  # vanished instances in one line
MOST_UNSUPPORTED = 10  # lines about intentions of one list that are not understood


class WatchJournal(Log):
    """Logs the events of watches and of the values they bring, and unforeseen exceptions."""

    def __init__(self, stream: TextIO, clock: Clock, options: LogOptions = DEFAULT_OPTIONS) -> None:
        super().__init__(stream, clock, options)
        self.internal_errors: Counter[str] = Counter()  # by `Where`, since the start

    def internal_error(self, where: Where, name: str, error: BaseException, /) -> None:
        """An unforeseen exception has ended one watch, connection or task (docs/failures.md).

        A want of memory is logged without its traceback, which would need some.
        """
        self.internal_errors[where.value] += 1
        mute = isinstance(error, MemoryError) or self.is_flooded(
            "internal_error", where=where.value, name=name
        )
        trace = "" if mute else "".join(traceback.format_exception(error))
        self.write(
            LogLevel.ERROR,
            "internal_error",
            where=where.value,
            name=name,
            error=type(error).__name__,
            trace=trace,
        )

    def watch_failed(self, status: WatchStatus) -> None:
        """A question to Consul has failed. Repetitions of one reason are logged at debug level."""
        failure = status.failing
        if failure is None:
            return
        level = LogLevel.WARN if status.failures_in_row == 1 or status.reason_changed else LogLevel.DEBUG
        reason = str(failure.reason)
        if isinstance(failure, WatchCrashed):
            self.internal_error(Where.WATCH, status.name, failure.error)
        self.write(level, "watch.failed", watch=status.name, reason=reason, detail=str(failure))

    def watch_recovered(self, status: WatchStatus) -> None:
        """Consul answers a watch again."""
        self.write(LogLevel.INFO, "watch.recovered", watch=status.name)

    def watch_filtered(self, status: WatchStatus) -> None:
        """ACLs begin or cease to remove entries from a watch's answers; the remaining entries are used."""
        if status.filtered:
            detail = "ACLs hide some entries from the token; the visible ones are used"
            self.write(LogLevel.WARN, "watch.filtered", watch=status.name, detail=detail)
        else:
            self.write(LogLevel.INFO, "watch.unfiltered", watch=status.name)

    def instances_kept(self, lookup: str, instances: Sequence[Endpoint], seconds: float) -> None:
        """Consul offers no instance, and these are used for a while (`vanished_grace`, docs/upstreams.md)."""
        self.write(
            LogLevel.WARN,
            "upstream.vanished",
            upstream=lookup,
            instances=", ".join(f"{one} ({one.status.value})" for one in instances[:MOST_KEPT]),
            of=len(instances),
            until=(self._clock() + timedelta(seconds=seconds)).isoformat(),
        )

    def instances_not_kept(self, lookup: str, *, offered: bool) -> None:
        """Vanished instances are used no more: Consul offers some again, or it is obeyed from now on."""
        if offered:
            self.write(LogLevel.INFO, "upstream.returned", upstream=lookup)
        else:
            self.write(LogLevel.WARN, "upstream.given_up", upstream=lookup)

    def token_changed(self) -> None:
        """The token file holds another token."""
        self.write(LogLevel.INFO, "token.changed")

    def token_complaint(self, complaint: str) -> None:
        """The token file is unusable and the last good token stays in force, or the file is good again."""
        if complaint:
            self.write(LogLevel.ERROR, "token.unusable", detail=complaint)
        else:
            self.write(LogLevel.INFO, "token.usable")

    def registration_changed(self, proxy_id: str, problems: Sequence[str]) -> None:
        """Another registration is in force."""
        self.write(LogLevel.INFO, "registration.changed", proxy_id=proxy_id)
        for problem in problems:
            self.write(LogLevel.WARN, "registration.problem", detail=problem)

    def registration_gone(self, proxy_id: str) -> None:
        """Consul does not know the proxy any more; the agent serves its last registration."""
        self.write(LogLevel.WARN, "registration.gone", proxy_id=proxy_id)

    def self_registration_failed(self, detail: str) -> None:
        """`-register` has failed; the agent tries again."""
        self.write(LogLevel.WARN, "registration.own_failed", detail=detail)

    def maintenance_ended(self) -> None:
        """The maintenance of our proxy, in which our last end had put it, is over."""
        self.write(LogLevel.INFO, "maintenance.ended")

    def maintenance_failed(self, detail: str) -> None:
        """The maintenance of our proxy could not be asked for, begun or ended."""
        self.write(LogLevel.WARN, "maintenance.failed", detail=detail)

    def intentions_changed(self, rules: int, default: str, unsupported: Sequence[str]) -> None:
        """Other intentions or another default are in force; those not understood deny."""
        self.write(LogLevel.INFO, "intentions.changed", rules=rules, default=default)
        for rule in unsupported[:MOST_UNSUPPORTED]:
            self.write(LogLevel.WARN, "intentions.unsupported", rule=rule, of=len(unsupported))

    def outgoing_changed(self, rules: int) -> None:
        """The intentions that name our service as a source have changed.

        `rules` of them may deny its calls.
        """
        self.write(LogLevel.INFO, "outgoing.changed", rules=rules)

    def intentions_too_old(self, since: datetime) -> None:
        """Consul has not confirmed the intentions for `intentions_max_age`: all callers are refused."""
        self.write(LogLevel.ERROR, "intentions.too_old", since=since.isoformat())

    def replica_old(self, of: str, detail: str) -> None:
        """The primary datacenter has not said for `replica_warn` what our datacenter says."""
        self.write(LogLevel.WARN, "replica.old", of=of, detail=detail)

    def replica_current(self, of: str) -> None:
        """The primary datacenter says the same as ours again."""
        self.write(LogLevel.INFO, "replica.current", of=of)

    def intentions_current(self) -> None:
        """Consul has confirmed the intentions again."""
        self.write(LogLevel.INFO, "intentions.current")

    def audit_mode(self) -> None:
        """The settings switch the enforcement of intentions off."""
        self.write(LogLevel.WARN, "audit.on", detail="calls that intentions deny are logged, and allowed")

    def deny_list_changed(self, entries: int) -> None:
        """Another deny list is in force."""
        self.write(LogLevel.WARN, "deny_list.changed", entries=entries)

    def deny_list_unusable(self, detail: str) -> None:
        """The deny file is unusable; the last good list stays in force."""
        self.write(LogLevel.ERROR, "deny_list.unusable", detail=detail)

    def credentials_published(self, contexts: Contexts) -> None:
        """New credentials are in force: a proven leaf, or roots that no longer vouch for the leaf."""
        leaf, unfit = contexts.credentials.leaf, contexts.credentials.unfit
        if unfit:
            self.write(
                LogLevel.ERROR, "credentials.unservable", reason=OwnFault.UNTRUSTED.value, detail=unfit
            )
        self.write(
            LogLevel.INFO,
            "credentials.published",
            generation=contexts.generation,
            id=str(leaf.id),
            serial=leaf.serial,
            not_after=leaf.not_after.isoformat(),
            root=contexts.credentials.bundle.active.id,
        )

    def credentials_rejected(self, reason: str, detail: str) -> None:
        """A leaf does not fit the roots; the last good credentials stay in force."""
        self.write(LogLevel.ERROR, "credentials.rejected", reason=reason, detail=detail)

    def renewal_failed(self, detail: str, not_after: datetime) -> None:
        """The leaf is due for renewal, and Consul returns no newer one."""
        self.write(LogLevel.WARN, "renewal.failed", detail=detail, not_after=not_after.isoformat())

    def leaf_churning(self, detail: str) -> None:
        """Consul issues the leaf again and again."""
        self.write(LogLevel.ERROR, "leaf.churning", detail=detail)

    def roots_unreadable(self, detail: str) -> None:
        """Retiring roots in Consul's list cannot be read; certificates under them are not trusted."""
        self.write(LogLevel.ERROR, "roots.unreadable", detail=detail)

    def roots_behind(self, reason: str, detail: str) -> None:
        """The root of a new leaf is unknown, and Consul did not return it when asked."""
        self.write(LogLevel.WARN, "roots.behind", reason=reason, detail=detail)

    def clock_skewed(self, seconds: float, notable: bool) -> None:
        """Consul's clock and ours differ by more than is safe, or agree again."""
        level, event = (LogLevel.WARN, "clock.skewed") if notable else (LogLevel.INFO, "clock.agrees")
        self.write(level, event, seconds=round(seconds, 1))

    def rejudged(self, closed: int) -> None:
        """A change of policy has closed connections; each of them has a line of its own."""
        self.write(LogLevel.INFO, "rejudged", closed=closed)

    def state_resumed(self, values: str, at: datetime) -> None:
        """Consul does not answer: these values are of the last run, confirmed `at` (docs/failures.md)."""
        self.write(LogLevel.WARN, "state.resumed", values=values, at=at.isoformat(timespec="seconds"))

    def state_confirmed(self) -> None:
        """Consul has answered for every value that was of the last run."""
        self.write(LogLevel.INFO, "state.confirmed")

    def state_unusable(self, reason: str, detail: str) -> None:
        """The state of the last run is not used."""
        self.write(LogLevel.WARN, "state.unusable", reason=reason, detail=detail)

    # --- upstreams (agent.outbound.upstream_state.TargetEvents) ---

    def target_changed(self, upstream: Upstream, before: Destination, after: Destination, /) -> None:
        """New connections of an upstream go to another target."""
        self.write(
            LogLevel.WARN,
            "upstream.target_changed",
            upstream=str(upstream.destination),
            bind=str(upstream.bind),
            before=str(before),
            after=str(after),
        )

    def ejected(self, upstream: Upstream, endpoint: Endpoint, seconds: float, /) -> None:
        """A failing endpoint is ejected for `seconds`."""
        self.write(
            LogLevel.INFO,
            "upstream.ejected",
            upstream=str(upstream.destination),
            endpoint=str(endpoint),
            until=(self._clock() + timedelta(seconds=seconds)).isoformat(),
        )

    def doubted(
        self, upstream: Upstream, endpoint: Endpoint, dialling: DialAddress, found: AddressWarning, /
    ) -> None:
        """An answered address looks wrong; logged once for each address."""
        self.write(
            LogLevel.INFO if found.avoided else LogLevel.WARN,
            "upstream.address_doubt",
            upstream=str(upstream.destination),
            endpoint=str(endpoint),
            doubt=found.value,
            answered=f"{endpoint.service_address or endpoint.node_address}:{endpoint.port}",
            dialled=str(dialling),
        )
