"""The newest proven values: the control plane writes them, the data plane reads them at the moment of use.

Each cell has one writer: the control plane, or in a worker the link to the control process. A published value
is replaced, never removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from agent.base.freshness import Confirmation
from agent.base.latest import Latest
from agent.base.watch_status import WatchStatus
from agent.config.registration import Registration
from agent.policy.authorize import Policy
from agent.policy.deny_list import NO_ENTRIES, DenyList
from agent.policy.source_intentions import OwnIntentions, SourceIntentions
from certs.contexts import Contexts
from upstreams.endpoints import EndpointSet
from upstreams.spec import Lookup, Upstream

NEWS_SECONDS, SOON_SECONDS = 2.0, 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The cells of one agent, or of one worker.

    `confirmed`: when Consul last confirmed the intentions in `policy`; it changes while they do not.
    `own_intentions`: looked up after a callee's refusal, to explain it; they decide nothing.
    """

    registration: Latest[Registration] = field(default_factory=Latest)
    credentials: Latest[Contexts] = field(default_factory=Latest)
    policy: Latest[Policy] = field(default_factory=Latest)
    confirmed: Latest[Confirmation] = field(default_factory=Latest)
    source_intentions: Latest[SourceIntentions] = field(default_factory=Latest)
    own_intentions: Latest[OwnIntentions] = field(default_factory=Latest)
    deny_list: Latest[DenyList] = field(default_factory=lambda: Latest(NO_ENTRIES))

    def own_datacenter(self) -> str:
        """Return our datacenter: by the leaf, before there is one by the registration, else empty."""
        contexts, registration = self.credentials.value, self.registration.value
        if contexts is not None:
            return contexts.credentials.leaf.id.datacenter
        return (registration.datacenter if registration is not None else None) or ""


@dataclass(slots=True, kw_only=True)
class EndpointSource:
    """The endpoints of one lookup.

    `is_polled` returns whether newer endpoints come only when the source is asked again, or at intervals.
    """

    endpoints: Latest[EndpointSet]
    status: WatchStatus
    ask_again: Callable[[], None]
    is_polled: Callable[[], bool] = bool
    answers_at_once: bool = False  # when it is asked again: a list of Consul's, and no query that it executes

    @property
    def polled(self) -> bool:
        """Whether newer endpoints come only when the source is asked again, or at intervals."""
        return self.is_polled()

    @property
    def news_seconds(self) -> float:
        """How long it is worth waiting for newer endpoints, after they were asked for."""
        return SOON_SECONDS if self.answers_at_once and self.endpoints.value is not None else NEWS_SECONDS

    @property
    def may_have_news(self) -> bool:
        """Whether waiting for a moment may bring newer endpoints."""
        return self.polled or self.endpoints.value is None


class EndpointSources(Protocol):
    """The endpoints by lookup."""

    def want(self, upstreams: Iterable[Upstream], /) -> None:
        """Keep the sources of these upstreams up to date, and no others."""

    def explain_refusals(self) -> None:
        """Have `Snapshot.own_intentions` looked up anew, since a callee has refused us."""

    def source(self, lookup: Lookup, poll_interval: float | None, /) -> EndpointSource:
        """Return the source of a lookup, kept up to date from now on. `poll_interval` in seconds."""
