"""The Consul agent's HTTP API, as far as a sidecar needs it: typed calls, classified failures.

An answer is decoded and carries the position for the next blocking query; other modules read its meaning.
A failure is a `ConsulError` with one of six reasons. No text that this module makes holds a token.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Generic, Literal, TypeVar
from urllib.parse import quote, urlencode

import msgspec
import trio

from agent.base.undecodable import UNDECODABLE
from agent.consul.agent_services import ListedService, quoted
from agent.consul.answers import AuthorizeAnswer, LeafAnswer
from agent.consul.errors import ConsulError, ConsulReason, refused
from agent.consul.http import Client, Request, RequestFailed, RequestFailure, Response
from agent.consul.token import TokenSource, TokenUnusable
from upstreams.spec import QueryDestination, ServiceDestination

T = TypeVar("T")
U = TypeVar("U")

MATCH = "/v1/connect/intentions/match"
CALL_SECONDS = 15.0  # a call that does not block; Consul itself holds one for 7 s when there is no leader
MOST_AGE = 10  # seconds since the agent's cache last heard from its servers
MARGIN_SECONDS = 10.0  # added to the time that a blocking query may take
_MOST_DIGITS = 20  # of an index, an unsigned number of 64 bits

Params = Mapping[str, str]
Json = dict[str, object]
RawList = list[msgspec.Raw]  # long lists stay JSON, and are read in steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Generic[T]):
    """A decoded body and what the headers say about it. A leaf's value holds a key: it stays out of repr."""

    value: T = field(repr=False)
    index: int | None = None
    content_hash: str = ""
    default_policy: str = ""
    last_contact: str = ""  # milliseconds since the server heard from its leader
    filtered: bool = False  # ACLs have removed entries from the list (Consul 1.11 and later)
    digest: int = 0  # of the body, for this process: equal bodies have equal ones

    def carrying(self, value: U) -> Answer[U]:
        """Return the same headers with a part of the body."""
        return Answer(
            value=value,
            index=self.index,
            content_hash=self.content_hash,
            default_policy=self.default_policy,
            last_contact=self.last_contact,
            filtered=self.filtered,
            digest=self.digest,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocking:
    """The position of a blocking query, an index or a hash, and how long Consul may hold it, in seconds.

    `has_turn`: the question has its connection already. `cached`: the agent may answer from its cache, which
    it keeps up to date (both agent.consul.budget).
    """

    index: int = 0
    content_hash: str = ""
    wait: float = 0.0
    has_turn: bool = False
    cached: bool = False

    @property
    def params(self) -> dict[str, str]:
        """The query parameters, none for an immediate answer."""
        if self.content_hash:
            return {"hash": self.content_hash, "wait": f"{self.wait:g}s"}
        return {"index": str(self.index), "wait": f"{self.wait:g}s"} if self.index else {}

    @property
    def seconds(self) -> float:
        """Seconds for the call: Consul adds up to 1/16 to the wait (docs/consul-api.md#blocking-queries)."""
        return self.wait * 17 / 16 + MARGIN_SECONDS if self.params else CALL_SECONDS


IMMEDIATE = Blocking()


class Consul:
    """Calls to one agent with one token."""

    def __init__(
        self, http: Client, token: TokenSource, *, scope: Params | None = None, http_auth: str | None = None
    ) -> None:
        self._http = http
        self._token = token
        self._scope = dict(scope or {})
        self._http_auth = http_auth
        self.clock: Callable[[], float] = trio.current_time
        # Called with each answer's Date, and how many seconds old that can be at most.
        self.on_date: Callable[[str, float], None] = _ignore_date
        # Called when the agent refuses for the number of connections or questions (429).
        self.on_refused: Callable[[], None] = _ignore_refusal
        # Entered for each question that has no turn yet.
        self.turn: Callable[[], AbstractAsyncContextManager[None]] = _at_once

    async def aclose(self) -> None:
        """Close the idle connections."""
        await self._http.aclose()

    async def keep(self, connections: int) -> None:
        """Keep that many connections from now on."""
        await self._http.keep(connections)

    async def services(self) -> dict[str, ListedService]:
        """Return the agent's own services by id (/v1/agent/services); a denied token sees none."""
        return (await self.get("/v1/agent/services", IMMEDIATE, dict[str, ListedService])).value

    async def proxies_of(self, service_id: str) -> dict[str, ListedService]:
        """Return the proxies whose destination is that service id, by id; the id must match in case.

        The filter runs in Consul, so that other services' definitions are not transferred.
        """
        text = quoted(service_id)
        if not text:
            return await self.services()  # no text of a filter can hold the id
        beside = f'Kind == "connect-proxy" and Proxy.DestinationServiceID == {text}'
        kind = dict[str, ListedService]
        return (await self.get("/v1/agent/services", IMMEDIATE, kind, {"filter": beside})).value

    async def service(self, service_id: str, at: Blocking = IMMEDIATE) -> Answer[Json]:
        """Return one service of the agent (/v1/agent/service/:id), blocking by content hash."""
        return await self.get(f"/v1/agent/service/{segment(service_id)}", at, Json)

    async def roots(self, at: Blocking = IMMEDIATE) -> Answer[Json]:
        """Return the trust bundle (/v1/agent/connect/ca/roots)."""
        return await self.get("/v1/agent/connect/ca/roots", at, Json)

    async def roots_of(self, datacenter: str) -> Answer[Json]:
        """Return the roots as a datacenter's servers have them, not from the agent's cache."""
        return await self.get("/v1/connect/ca/roots", IMMEDIATE, Json, _dc(datacenter))

    async def leaf(
        self, service: str, at: Blocking = IMMEDIATE, *, reissue: bool = False
    ) -> Answer[LeafAnswer]:
        """Return our certificate and key; without an index Consul checks whether they must be renewed.

        `reissue` asks for a new leaf whatever the age of the present one; the embedded datacenter issues it,
        Consul ignores the parameter.
        """
        params = {"reissue": "true"} if reissue else {}
        return await self.get(f"/v1/agent/connect/ca/leaf/{segment(service)}", at, LeafAnswer, params)

    async def datacenters(self) -> list[str]:
        """Return all known datacenters, the agent's own first (/v1/catalog/datacenters)."""
        return (await self.get("/v1/catalog/datacenters", IMMEDIATE, list[str])).value

    async def intentions(
        self, service: str, at: Blocking = IMMEDIATE, *, datacenter: str | None = None
    ) -> Answer[RawList | None]:
        """Return the intentions that match `service` as destination, wildcards among them.

        The answer carries the ACL default policy. Raises ConsulError where it says nothing about `service`.
        """
        return matched(service, await self.match(service, at, datacenter=datacenter))

    async def match(
        self,
        service: str,
        at: Blocking = IMMEDIATE,
        *,
        by: Literal["destination", "source"] = "destination",
        datacenter: str | None = None,
    ) -> Answer[bytes]:
        """Return the intentions that match `service` as destination or as source, undecoded: see `matched`.

        A long list that has not changed is recognised by its bytes, at a hundredth of the price.
        """
        params = {"by": by, "name": service} | _dc(datacenter)
        response = await self._call("GET", MATCH, params, at)
        return _undecoded(response)

    async def authorize(self, service: str, caller: str) -> Answer[AuthorizeAnswer]:
        """Return whether the agent lets `caller`, a SPIFFE ID, call `service`.

        Needs service:write on `service`.

        The agent answers from its cache of intentions, and ignores the caller's trust domain and datacenter.
        """
        body = msgspec.json.encode({"Target": service, "ClientCertURI": caller, "ClientCertSerial": ""})
        path = "/v1/agent/connect/authorize"
        response = await self._call("POST", path, {}, body=body)
        return _decoded(path, _undecoded(response), AuthorizeAnswer)

    async def endpoints(self, service: ServiceDestination, at: Blocking = IMMEDIATE) -> Answer[RawList]:
        """Return the proxies and native instances of a service, healthy or not."""
        chosen = {"filter": service.filter, "near": service.near}
        params = _dc(service.datacenter) | {name: value for name, value in chosen.items() if value}
        if service.near:
            at = replace(at, cached=False)  # the cache may hold what was sorted for others
        return await self.get(f"/v1/health/connect/{segment(service.name)}", at, RawList, params)

    async def gateways(self, datacenter: str | None, at: Blocking = IMMEDIATE) -> Answer[RawList]:
        """Return the mesh gateways of a datacenter, by the usual name of their service."""
        path = "/v1/health/service/mesh-gateway"
        return await self.get(path, at, RawList, _dc(datacenter))

    async def execute(self, query: QueryDestination, at: Blocking = IMMEDIATE) -> Answer[Json]:
        """Return the present answer of a prepared query, which cannot block; `connect` selects proxies."""
        path = f"/v1/query/{segment(query.name)}/execute"
        params = {"connect": "true"} | _dc(query.datacenter) | ({"near": query.near} if query.near else {})
        return await self.get(path, Blocking(has_turn=at.has_turn), Json, params)

    async def register(self, service: Json) -> None:
        """Register a service with the agent."""
        await self.put("/v1/agent/service/register", msgspec.json.encode(service))

    async def deregister(self, service_id: str) -> None:
        """Take a service off the agent."""
        await self.put(f"/v1/agent/service/deregister/{segment(service_id)}", b"")

    async def update_check(self, check_id: str, output: str, *, passing: bool) -> None:
        """Set the status and output of one of our TTL checks."""
        body = {"Status": "passing" if passing else "critical", "Output": output}
        await self.put(f"/v1/agent/check/update/{segment(check_id)}", msgspec.json.encode(body))

    async def get(self, path: str, at: Blocking, kind: type[T], params: Params | None = None) -> Answer[T]:
        """Return the decoded answer to a GET."""
        response = await self._call("GET", path, params or {}, at)
        return _decoded(path, _undecoded(response), kind)

    async def put(self, path: str, body: bytes, params: Params | None = None) -> None:
        """Send a PUT whose answer says nothing."""
        await self._call("PUT", path, params or {}, body=body)

    async def _call(
        self, method: str, path: str, params: Params, at: Blocking = IMMEDIATE, *, body: bytes = b""
    ) -> Response:
        if not at.has_turn:
            async with self.turn():
                return await self._call(method, path, params, replace(at, has_turn=True), body=body)
        cached = {"cached": ""} if at.cached else {}
        query = urlencode({**self._scope, **params, **at.params, **cached})
        target = f"{path}?{query}" if query else path
        asked = self.clock()
        try:
            request = Request(method=method, target=target, headers=self._headers(), body=body)
            response = await self._http.exchange(request, at.seconds)
        except TokenUnusable as error:
            raise ConsulError(ConsulReason.NOT_ASKED, path, str(error)) from error
        except RequestFailed as error:
            malformed = error.failure in (RequestFailure.MALFORMED, RequestFailure.TOO_LARGE)
            reason = ConsulReason.MALFORMED if malformed else ConsulReason.UNAVAILABLE
            raise ConsulError(reason, path, str(error)) from error
        took = self.clock() - asked
        held = at.wait if took >= at.wait and _unchanged(at, response.headers) else 0.0
        self.on_date(response.headers.get("date", ""), took - held)
        age = response.headers.get("age", "") if at.cached else ""
        if response.status == 200 and age.isdigit() and int(age[:9]) > MOST_AGE:
            text = f"the agent's cache has not heard from its servers for {age} s"
            raise ConsulError(ConsulReason.UNAVAILABLE, path, text, status=200)
        if response.status == 200:
            return response
        if response.status == 429:
            self.on_refused()
        raise refused(path, response)

    def _headers(self) -> dict[str, str]:
        headers = {}
        token = self._token.current()
        if token:
            headers["X-Consul-Token"] = token
        if self._http_auth:
            headers["Authorization"] = "Basic " + b64encode(self._http_auth.encode()).decode()
        return headers


def matched(service: str, answer: Answer[bytes]) -> Answer[RawList | None]:
    """Return the list for `service` in an answer of `Consul.match`; raise ConsulError if there is none."""
    lists = _decoded(MATCH, answer, dict[str, RawList | None])
    if service not in lists.value:
        raise ConsulError(ConsulReason.MALFORMED, MATCH, f"unexpected answer: nothing about {service!r}")
    return lists.carrying(lists.value[service])


def _decoded(path: str, answer: Answer[bytes], kind: type[T]) -> Answer[T]:
    try:
        return answer.carrying(msgspec.json.decode(answer.value, type=kind))
    except UNDECODABLE as error:
        # The error's text names the field and the types, never a value, so it cannot show a leaf's key.
        raise ConsulError(ConsulReason.MALFORMED, path, f"unexpected answer: {error}") from None


def _undecoded(response: Response) -> Answer[bytes]:
    return Answer(
        value=response.body,
        index=_index(response.headers),
        content_hash=response.headers.get("x-consul-contenthash", ""),
        default_policy=response.headers.get("x-consul-default-acl-policy", ""),
        last_contact=response.headers.get("x-consul-lastcontact", ""),
        filtered=response.headers.get("x-consul-results-filtered-by-acls") == "true",
        digest=hash(response.body),
    )


@asynccontextmanager
async def _at_once() -> AsyncIterator[None]:
    """Default `turn`: no question waits."""
    yield


def _ignore_date(_date: str, _oldest: float) -> None:
    """Default `on_date`: ignore the Date header."""


def _ignore_refusal() -> None:
    """Default `on_refused`: the error says it too."""


def _unchanged(at: Blocking, headers: Mapping[str, str]) -> bool:
    """Return whether Consul has held the question for all of its wait, since the answer has not changed."""
    if at.content_hash:
        return headers.get("x-consul-contenthash") == at.content_hash
    return bool(at.index) and _index(headers) == at.index


def segment(text: str) -> str:
    """Return a text as one segment of a path."""
    return quote(text, safe="")


def _dc(datacenter: str | None) -> dict[str, str]:
    return {"dc": datacenter} if datacenter else {}


def _index(headers: Mapping[str, str]) -> int | None:
    text = headers.get("x-consul-index", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None
