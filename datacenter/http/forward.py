"""Calls to the other datacenters, over HTTP where Consul uses RPC; failures have Consul's words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import quote, urlencode, urlsplit

import httpcore2

from datacenter.http.context import Answer, Federation, Reply, Request
from datacenter.http.frame import FORWARDED, TEXT
from datacenter.http.go_errors import dial_failure
from datacenter.state.errors import ApiError
from datacenter.state.store import Document, Store

DATACENTERS = "datacenters"  # table: datacenter name -> {"Address": base URL, …}; the federation writes it

_PASSED = (
    "X-Consul-Index",
    "X-Consul-Knownleader",
    "X-Consul-Lastcontact",
    "X-Consul-Query-Backend",
    "X-Consul-Effective-Consistency",
    "X-Consul-Contenthash",
    "X-Cache",
    "Age",
)
_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 30.0


def signing_under(datacenter: Mapping[str, Any]) -> set[str]:
    """Return the IDs of the roots under which a datacenter may be signing now, by the table."""
    return {str(datacenter.get("RootID", "")), *datacenter.get("Signed", ())} - {""}


class KnownDatacenters:
    """The federation as the store knows it."""

    __slots__ = ("_own", "_table")

    def __init__(self, own: str, store: Store) -> None:
        self._own = own
        self._table = store.table(DATACENTERS)

    def base_url(self, datacenter: str) -> str | None:
        """Return the HTTP address of another datacenter, None if there is no path to it."""
        row = self._table.get(datacenter)
        return str(row.value["Address"]) or None if row else None

    def datacenters(self) -> list[str]:
        """Return every known datacenter, our own first."""
        return [
            self._own,
            *(row.key for row in self._table.rows() if row.key != self._own and row.value["Address"]),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """An answer as received; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class Wire(Protocol):
    """Carries calls to another datacenter. Raises ApiError in Consul's words for a failed dial or call."""

    async def exchange(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes, patience: float
    ) -> Received:
        """Send one call; the answer may take `patience` seconds."""
        ...


class WireForwarder:
    """Decides what to send, and what of the answer is passed on.

    See docs/consul-api.md#requests.
    """

    def __init__(self, own: str, federation: Federation, wire: Wire) -> None:
        self._own = own
        self._federation = federation
        self._wire = wire

    async def forward(self, request: Request, datacenter: str) -> Reply:
        """Return the other datacenter's answer to the call. Raises ApiError."""
        base_url = self._federation.base_url(datacenter)
        if base_url is None:
            raise ApiError(500, "No path to datacenter")
        # The far side adds its own jitter of a sixteenth; a longer silence, with a margin, is a failure.
        blocks = request.index > 0 or "hash" in request.query
        received = await self._exchange(
            request.method,
            f"{base_url}{quote(request.path)}?{_parameters(request)}",
            request.body,
            request.token,
            request.wait * 18 / 16 + 10 if blocks else _ANSWER_SECONDS,
        )
        passed = {
            name: received.headers[name.lower()] for name in _PASSED if name.lower() in received.headers
        }
        content_type = received.headers.get("content-type", "")
        if content_type == "application/json":
            return Reply(value=json.loads(received.body), headers=passed)
        if not received.body:
            return Reply(headers=passed)
        return Reply(value=received.body, content_type=content_type or TEXT, headers=passed)

    async def call(
        self,
        method: str,
        url: str,
        *,
        body: Document | None = None,
        token: str = "",
        patience: float = _ANSWER_SECONDS,
    ) -> Answer:
        """Send an internal call of our own to a URL; wait at most `patience` seconds. Raises ApiError."""
        content = b"" if body is None else json.dumps(body).encode()
        received = await self._exchange(method, url, content, token, patience)
        value = json.loads(received.body) if received.body else None
        return Answer(value=value, index=int(received.headers.get("x-consul-index", "0")))

    async def _exchange(self, method: str, url: str, body: bytes, token: str, patience: float) -> Received:
        headers = {FORWARDED: self._own} | ({"X-Consul-Token": token} if token else {})
        received = await self._wire.exchange(method, url, headers=headers, body=body, patience=patience)
        if received.status >= 400:
            text = received.body.decode("utf-8", "replace")
            # In Consul the first agent judges a request, so no 400 comes over RPC.
            prefix = "" if received.status == 400 else "rpc error making call: "
            raise ApiError(received.status, f"{prefix}{text}")
        return received


class HttpWire:
    """Carries calls over HTTP/1.1. Use it as an async context manager; connections are kept open."""

    def __init__(self) -> None:
        self._pool = httpcore2.AsyncConnectionPool(max_connections=None, max_keepalive_connections=20)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool.aclose()

    async def exchange(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes, patience: float
    ) -> Received:
        """Send one call. Raises ApiError if it cannot be made or breaks off."""
        timeout = {"connect": _CONNECT_SECONDS, "read": patience, "write": _ANSWER_SECONDS, "pool": None}
        sent = [*headers.items(), ("Content-Length", str(len(body)))]
        try:
            response = await self._pool.request(
                method, url, headers=sent, content=body, extensions={"timeout": timeout}
            )
        except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
            failure = dial_failure(urlsplit(url).netloc, error)
            raise ApiError(500, f"rpc error getting client: failed to get conn: {failure}") from error
        except httpcore2.TimeoutException as error:
            raise ApiError(500, "rpc error making call: i/o timeout") from error
        except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            raise ApiError(500, "rpc error making call: EOF") from error
        received = {name.decode("ascii").lower(): value.decode("latin-1") for name, value in response.headers}
        return Received(status=response.status, headers=received, body=response.content)


def _parameters(request: Request) -> str:
    return urlencode(
        [
            (name, value)
            for name, values in request.query_lists.items()
            for value in values
            if name not in {"dc", "token"}
        ]
    )
