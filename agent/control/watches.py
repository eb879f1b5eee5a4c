"""What the agent watches: each function makes one watch of a Consul call, a parser and a place to publish."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from agent.base.incremental import Incremental, Work
from agent.base.undecodable import UNREADABLE
from agent.config.registration import Registration, RegistrationRejected, parse_registration
from agent.config.upstream_config import LEAST_POLL_SECONDS, MOST_POLL_SECONDS, POLL_SECONDS
from agent.consul.api import Answer, Blocking, Consul, Json, LeafAnswer, RawList, matched
from agent.consul.watch import AnswerRejected, Cursor, Watch, WatchReason
from agent.policy.intentions import Intentions, InvalidIntentions, read_match
from agent.policy.source_intentions import SourceIntentions, read_source_intentions
from certs.bundle import BundleRejected, TrustBundle, parse_roots
from certs.leaf import Leaf, LeafRejected, parse_leaf
from upstreams.answers import InvalidAnswer, parse_query, read_health
from upstreams.endpoints import EndpointSet
from upstreams.spec import Gateways, Lookup, QueryDestination, ServiceDestination

MOST_TEXT = 500  # characters of what is wrong with an answer

T = TypeVar("T")

RegistrationWatch = Watch[Json, Registration]
RootsWatch = Watch[Json, TrustBundle]
LeafWatch = Watch[LeafAnswer, Leaf]
IntentionsWatch = Watch[bytes, Intentions]
OutgoingWatch = Watch[bytes, SourceIntentions]
EndpointsWatch = Watch[RawList, EndpointSet] | Watch[Json, EndpointSet]


def registration_watch(
    consul: Consul, proxy_id: str, publish: Callable[[Registration], None]
) -> RegistrationWatch:
    """Our own registration, by content hash."""
    ask = partial(consul.service, proxy_id)
    return Watch(name="registration", cursor=Cursor.HASH, ask=ask, read=read_registration, publish=publish)


def roots_watch(consul: Consul, publish: Callable[[TrustBundle], None]) -> RootsWatch:
    """The trust bundle."""
    return Watch(name="roots", cursor=Cursor.INDEX, ask=consul.roots, read=read_roots, publish=publish)


def leaf_watch(consul: Consul, service: str, publish: Callable[[Leaf], None]) -> LeafWatch:
    """Our leaf. The open question is also what makes Consul renew it."""
    ask = partial(consul.leaf, service)
    return Watch(name="leaf", cursor=Cursor.INDEX, ask=ask, read=read_leaf, publish=publish)


def intentions_watch(consul: Consul, service: str, publish: Callable[[Intentions], None]) -> IntentionsWatch:
    """Who may call us, and the default policy of ACLs, which every answer carries in a header."""

    def read(answer: Answer[bytes]) -> Incremental[Intentions]:
        return read_intentions(service, matched(service, answer))

    return Watch(
        name="intentions",
        cursor=Cursor.INDEX,
        ask=partial(consul.match, service),
        read=read,
        publish=publish,
        repeats=_repeats,
    )


def source_intentions_watch(
    consul: Consul, service: str, publish: Callable[[SourceIntentions], None]
) -> OutgoingWatch:
    """Whom we may not call."""

    def read(answer: Answer[bytes]) -> Incremental[SourceIntentions]:
        return _read_outgoing(matched(service, answer))

    return Watch(
        name="outgoing",
        cursor=Cursor.INDEX,
        ask=partial(consul.match, service, by="source"),
        read=read,
        publish=publish,
        repeats=_repeats,
    )


def _repeats(before: Answer[bytes], answer: Answer[bytes]) -> bool:
    """Whether the answers are the same in everything that their readers look at."""
    known = before.value, before.default_policy, before.filtered
    return known == (answer.value, answer.default_policy, answer.filtered)


def endpoints_watch(
    consul: Consul,
    lookup: Lookup,
    publish: Callable[[EndpointSet], None],
    poll_interval: float | None = None,
) -> EndpointsWatch:
    """Where an upstream's instances are, or the gateways to them; a prepared query is polled."""
    if isinstance(lookup, QueryDestination):
        return _query_watch(consul, lookup, publish, poll_interval)
    if isinstance(lookup, Gateways):
        ask = partial(consul.gateways, lookup.datacenter)
    else:
        ask = partial(consul.endpoints, lookup)
    read = partial(read_endpoints, lookup)
    return Watch(
        name=f"endpoints {lookup}",
        cursor=Cursor.INDEX,
        ask=ask,
        read=read,
        publish=publish,
        doubtful=_is_empty,
    )


def _query_watch(
    consul: Consul,
    query: QueryDestination,
    publish: Callable[[EndpointSet], None],
    poll_interval: float | None,
) -> Watch[Json, EndpointSet]:
    """Asked again after the interval that was set, else after the query's own TTL within bounds."""

    async def execute(_at: Blocking) -> Answer[Json]:
        return await consul.execute(query)

    def read(answer: Answer[Json]) -> EndpointSet:
        endpoints = read_found(query, answer)
        if poll_interval is None:
            hint = endpoints.ttl or POLL_SECONDS
            watch.poll_interval = min(MOST_POLL_SECONDS, max(LEAST_POLL_SECONDS, hint))
        return endpoints

    watch = Watch(
        name=f"endpoints {query}",
        cursor=Cursor.POLL,
        ask=execute,
        read=read,
        publish=publish,
        poll_interval=poll_interval or POLL_SECONDS,
    )
    return watch


def read_registration(answer: Answer[Json]) -> Registration:
    """Parse the answer of `/v1/agent/service/:id`; raise AnswerRejected."""
    try:
        return parse_registration(answer.value)
    except RegistrationRejected as error:
        raise AnswerRejected(error.reason, error.detail) from error
    except UNREADABLE as error:
        raise _malformed(error) from error


def read_leaf(answer: Answer[LeafAnswer]) -> Leaf:
    """Parse the answer of the leaf endpoint; raise AnswerRejected."""
    try:
        return parse_leaf(answer.value.cert_pem, answer.value.private_key_pem)
    except LeafRejected as error:
        raise AnswerRejected(error.reason, error.detail) from error
    except UNREADABLE as error:
        raise _malformed(error) from None  # whose cause may quote a key


def read_roots(answer: Answer[Json]) -> TrustBundle:
    """Parse the answer of the roots endpoint; raise AnswerRejected."""
    try:
        return parse_roots(answer.value)
    except BundleRejected as error:
        raise AnswerRejected(error.reason, error.detail) from error
    except UNREADABLE as error:
        raise _malformed(error) from error


def read_intentions(service: str, answer: Answer[RawList | None]) -> Incremental[Intentions]:
    """Parse the match answer; raises AnswerRejected as it is put together.

    A header that allows is half of what must be known of the default (agent.control.default_policy); without
    one (before 1.9) there is nothing to know. A list that is not whole is no list: what is missing from it
    may be a denial.
    """
    _refuse_filtered(answer)
    half_known = "authorize was not asked yet" if answer.default_policy == "allow" else ""
    work = read_match(answer.value, service, default_allow=False, default_unknown=half_known)
    return Incremental(_well_formed(work))


def _read_outgoing(answer: Answer[RawList | None]) -> Incremental[SourceIntentions]:
    _refuse_filtered(answer)
    return Incremental(_well_formed(read_source_intentions(answer.value)))


def read_endpoints(
    lookup: ServiceDestination | Gateways, answer: Answer[RawList]
) -> Incremental[EndpointSet]:
    """Parse an answer about health; raises AnswerRejected as it is put together, or for an empty list that
    is empty for want of rights. A list that is only shortened is used: what it names is there.
    """
    nearest_first = isinstance(lookup, ServiceDestination) and bool(lookup.near)
    if not answer.value:
        _refuse_filtered(answer)
    work = read_health(answer.value, f"health of {lookup}", nearest_first=nearest_first)
    return Incremental(_well_formed(work))


def _is_empty(endpoints: EndpointSet) -> bool:
    """Whether there is no instance at all; one that is critical is there."""
    return not endpoints.endpoints


def _refuse_filtered(answer: Answer[T]) -> None:
    """Raise AnswerRejected for a list that Consul has shortened for want of rights."""
    if answer.filtered:
        detail = "the token lacks rights to see what was asked for (service:read and node:read)"
        raise AnswerRejected(WatchReason.FILTERED, detail)


def _well_formed(work: Work[T]) -> Work[T]:
    try:
        return (yield from work)
    except UNREADABLE as error:
        raise _malformed(error) from error


def _malformed(error: Exception) -> AnswerRejected:
    """The one way in which an answer from outside fails to be read, beside the reasons of its reader."""
    text = f"{error}"[:MOST_TEXT]
    named = isinstance(error, InvalidAnswer | InvalidIntentions)
    return AnswerRejected("malformed", text if named else f"{type(error).__name__}: {text}")


def read_found(query: QueryDestination, answer: Answer[Json]) -> EndpointSet:
    """Parse what a prepared query has found; raise AnswerRejected, as `read_endpoints` does."""
    if not answer.value.get("Nodes"):
        _refuse_filtered(answer)
    try:
        return parse_query(answer.value, nearest_first=bool(query.near))
    except UNREADABLE as error:
        raise _malformed(error) from error
