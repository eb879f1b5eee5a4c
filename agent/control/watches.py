"""The watches of the agent: each function combines a Consul call, a parser and a place to publish."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import trio

from agent.base.incremental import Incremental, Work
from agent.base.undecodable import UNREADABLE
from agent.config.registration import Registration, RegistrationRejected, parse_registration
from agent.config.upstream_config import LEAST_POLL_SECONDS, MOST_POLL_SECONDS, POLL_SECONDS
from agent.consul.answers import LeafAnswer
from agent.consul.api import Answer, Consul, Json, RawList, matched
from agent.consul.errors import ConsulError
from agent.consul.watch import AnswerRejected, Cursor, Watch, WatchReason
from agent.policy.intentions import Intentions, InvalidIntentions, read_match
from agent.policy.source_intentions import (
    OwnIntentions,
    SourceIntentions,
    read_own_intentions,
    read_source_intentions,
    unknown_own_intentions,
)
from certs.bundle import BundleRejected, TrustBundle, parse_roots
from certs.leaf import Leaf, LeafRejected, parse_leaf
from upstreams.answers import InvalidAnswer, parse_query, read_health
from upstreams.endpoints import EndpointSet
from upstreams.spec import Gateways, Lookup, QueryDestination, ServiceDestination

MOST_TEXT = 500  # characters of a text about a wrong answer
LOOK_SECONDS = 5.0  # for a question that explains, and decides nothing

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
    """Return the watch of our own registration, by content hash."""

    def read(answer: Answer[Json]) -> Incremental[Registration]:
        return Incremental(_in_two_steps(answer))

    ask = partial(consul.service, proxy_id)
    return Watch(name="registration", cursor=Cursor.HASH, ask=ask, read=read, publish=publish)


def _in_two_steps(answer: Answer[Json]) -> Work[Registration]:
    """Read it, and let connections be served before it is published: it may have hundreds of upstreams."""
    registration = read_registration(answer)
    yield
    return registration


def roots_watch(consul: Consul, publish: Callable[[TrustBundle], None]) -> RootsWatch:
    """Return the watch of the trust bundle."""
    return Watch(name="roots", cursor=Cursor.INDEX, ask=consul.roots, read=read_roots, publish=publish)


def leaf_watch(consul: Consul, service: str, publish: Callable[[Leaf], None]) -> LeafWatch:
    """Return the watch of our leaf; its open question makes Consul renew the leaf."""
    ask = partial(consul.leaf, service)
    return Watch(name="leaf", cursor=Cursor.INDEX, ask=ask, read=read_leaf, publish=publish)


def intentions_watch(consul: Consul, service: str, publish: Callable[[Intentions], None]) -> IntentionsWatch:
    """Return the watch of our intentions, whose answers carry the ACL default policy in a header."""

    def read(answer: Answer[bytes]) -> Incremental[Intentions]:
        return read_intentions(service, matched(service, answer))

    return Watch(
        name="intentions",
        cursor=Cursor.INDEX,
        ask=partial(consul.match, service),
        read=read,
        publish=publish,
        essence=_essence,
    )


def source_intentions_watch(
    consul: Consul, service: str, publish: Callable[[SourceIntentions], None]
) -> OutgoingWatch:
    """Return the watch of the intentions with our service as source."""

    def read(answer: Answer[bytes]) -> Incremental[SourceIntentions]:
        return _read_outgoing(matched(service, answer))

    return Watch(
        name="outgoing",
        cursor=Cursor.INDEX,
        ask=partial(consul.match, service, by="source"),
        read=read,
        publish=publish,
        essence=_essence,
    )


async def own_intentions(consul: Consul, service: str) -> OwnIntentions:
    """Return every intention with our service as source; why not, within them, if Consul does not tell."""
    answer: Answer[bytes] | None = None
    try:
        with trio.move_on_after(LOOK_SECONDS):
            answer = await consul.match(service, by="source")
        if answer is None:
            return unknown_own_intentions(f"Consul has not answered within {LOOK_SECONDS:g} s")
        listed = matched(service, answer)
        _refuse_filtered(listed)
        work = read_own_intentions(listed.value, default_allow=answer.default_policy == "allow")
        return await Incremental(_well_formed(work)).run()
    except (ConsulError, AnswerRejected) as error:
        return unknown_own_intentions(str(error))


def _essence(answer: Answer[bytes]) -> object:
    """Return all of an answer that its reader uses."""
    return answer.value, answer.default_policy, answer.filtered


def _digest(answer: Answer[T]) -> object:
    """Return what stands for a list, which may be megabytes and is not kept."""
    return answer.digest, answer.filtered


def endpoints_watch(
    consul: Consul,
    lookup: Lookup,
    publish: Callable[[EndpointSet], None],
    poll_interval: float | None = None,
) -> EndpointsWatch:
    """Return the watch of an upstream's endpoints, or of gateways; a prepared query is polled."""
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
        essence=_digest,
    )


def _query_watch(
    consul: Consul,
    query: QueryDestination,
    publish: Callable[[EndpointSet], None],
    poll_interval: float | None,
) -> Watch[Json, EndpointSet]:
    """Return a watch that asks after the interval that is set, or after the query's own TTL within bounds."""

    def read(answer: Answer[Json]) -> EndpointSet:
        endpoints = read_found(query, answer)
        if poll_interval is None:
            hint = endpoints.ttl or POLL_SECONDS
            watch.poll_interval = min(MOST_POLL_SECONDS, max(LEAST_POLL_SECONDS, hint))
        return endpoints

    watch = Watch(
        name=f"endpoints {query}",
        cursor=Cursor.POLL,
        ask=partial(consul.execute, query),
        read=read,
        publish=publish,
        poll_interval=poll_interval or POLL_SECONDS,
    )
    return watch


def read_registration(answer: Answer[Json]) -> Registration:
    """Parse an answer of /v1/agent/service/:id. Raises AnswerRejected."""
    try:
        return parse_registration(answer.value)
    except RegistrationRejected as error:
        raise AnswerRejected(error.reason, error.detail) from error
    except UNREADABLE as error:
        raise _malformed(error) from error


def read_leaf(answer: Answer[LeafAnswer]) -> Leaf:
    """Parse an answer of the leaf endpoint. Raises AnswerRejected."""
    try:
        return parse_leaf(answer.value.cert_pem, answer.value.private_key_pem)
    except LeafRejected as error:
        raise AnswerRejected(error.reason, error.detail) from error
    except UNREADABLE as error:
        raise _malformed(error) from None  # the cause may quote a key


def read_roots(answer: Answer[Json]) -> TrustBundle:
    """Parse an answer of the roots endpoint. Raises AnswerRejected."""
    try:
        return parse_roots(answer.value)
    except BundleRejected as error:
        raise AnswerRejected(error.reason, error.detail) from error
    except UNREADABLE as error:
        raise _malformed(error) from error


def read_intentions(service: str, answer: Answer[RawList | None]) -> Incremental[Intentions]:
    """Parse the match answer in steps. The work raises AnswerRejected.

    A header that allows is only a part of the default (agent.intentions.default_policy); a header that
    denies, or none (before 1.9), is the whole of it. A list filtered by ACLs is rejected, since a denial may
    be missing from it.
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
    """Parse an answer about health in steps. The work raises AnswerRejected.

    A list that ACLs have emptied raises AnswerRejected at once; a list that they have shortened is used.
    """
    nearest_first = isinstance(lookup, ServiceDestination) and bool(lookup.near)
    if not answer.value:
        _refuse_filtered(answer)
    work = read_health(answer.value, f"health of {lookup}", nearest_first=nearest_first)
    return Incremental(_well_formed(work))


def _is_empty(endpoints: EndpointSet) -> bool:
    """Return whether there is no instance at all, not even a critical one."""
    return not endpoints.endpoints


def _refuse_filtered(answer: Answer[T]) -> None:
    """Raise AnswerRejected for a list from which ACLs have removed entries."""
    if answer.filtered:
        detail = "the token lacks rights to see what was asked for (service:read and node:read)"
        raise AnswerRejected(WatchReason.FILTERED, detail)


def _well_formed(work: Work[T]) -> Work[T]:
    try:
        return (yield from work)
    except UNREADABLE as error:
        raise _malformed(error) from error


def _malformed(error: Exception) -> AnswerRejected:
    """Return the rejection of an answer that no reader has a reason for."""
    text = f"{error}"[:MOST_TEXT]
    named = isinstance(error, InvalidAnswer | InvalidIntentions)
    return AnswerRejected("malformed", text if named else f"{type(error).__name__}: {text}")


def read_found(query: QueryDestination, answer: Answer[Json]) -> EndpointSet:
    """Parse a prepared query's answer. Raises AnswerRejected, as `read_endpoints` does."""
    if not answer.value.get("Nodes"):
        _refuse_filtered(answer)
    try:
        return parse_query(answer.value, nearest_first=bool(query.near))
    except UNREADABLE as error:
        raise _malformed(error) from error
