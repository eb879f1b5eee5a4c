"""Calls to the other datacenters, over HTTP where Consul has RPC; failures are worded as Consul's are."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlencode, urlsplit

import httpcore2

from datacenter.api import Answer, Federation, Reply, Request
from datacenter.dialling import dial_failure
from datacenter.errors import ApiError
from datacenter.frame import FORWARDED, TEXT
from datacenter.store import Document, Store

DATACENTERS = "datacenters"  # table: datacenter name -> {"Address": base URL}; the federation writes it

_PASSED_HEADERS = (
    "X-Consul-Index",
    "X-Consul-Knownleader",
    "X-Consul-Lastcontact",
    "X-Consul-Query-Backend",
    "X-Consul-Effective-Consistency",
    "X-Consul-Contenthash",
)
_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 30.0


class KnownDatacenters:
    """The federation as the store knows it."""

    __slots__ = ("_own", "_table")

    def __init__(self, own: str, store: Store) -> None:
        self._own = own
        self._table = store.table(DATACENTERS)

    def base_url(self, datacenter: str) -> str | None:
        """The HTTP address of another datacenter, None when there is no path to it."""
        row = self._table.get(datacenter)
        return str(row.value["Address"]) if row else None

    def datacenters(self) -> list[str]:
        """Every known datacenter, our own first."""
        return [self._own, *(row.key for row in self._table.rows() if row.key != self._own)]


class HttpForwarder:
    """Use as an async context manager: connections to other datacenters are kept open in between."""

    def __init__(self, own: str, federation: Federation) -> None:
        self._own = own
        self._federation = federation
        self._pool = httpcore2.AsyncConnectionPool(max_connections=None, max_keepalive_connections=20)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool.aclose()

    async def forward(self, request: Request, datacenter: str) -> Reply:
        """The call as it is, answered by the other datacenter. Raises ApiError."""
        base_url = self._federation.base_url(datacenter)
        if base_url is None:
            raise ApiError(500, "No path to datacenter")
        # The far side adds its own jitter of a sixteenth; beyond that and a margin it has fallen silent.
        blocks = request.index > 0 or "hash" in request.query
        response = await self._exchange(
            request.method,
            f"{base_url}{quote(request.path)}?{_parameters(request)}",
            request.body,
            request.token,
            request.wait * 18 / 16 + 10 if blocks else _ANSWER_SECONDS,
        )
        received = {name.decode("ascii").lower(): value.decode("latin-1") for name, value in response.headers}
        headers = {name: received[name.lower()] for name in _PASSED_HEADERS if name.lower() in received}
        content_type = received.get("content-type", "")
        if content_type == "application/json":
            return Reply(value=json.loads(response.content), headers=headers)
        if not response.content:
            return Reply(headers=headers)
        return Reply(value=response.content, content_type=content_type or TEXT, headers=headers)

    async def call(
        self,
        method: str,
        url: str,
        *,
        body: Document | None = None,
        token: str = "",
        patience: float = _ANSWER_SECONDS,
    ) -> Answer:
        """An internal call of our own to a whole URL; waits at most `patience` seconds. Raises ApiError."""
        content = b"" if body is None else json.dumps(body).encode()
        response = await self._exchange(method, url, content, token, patience)
        received = {name.decode("ascii").lower(): value.decode("latin-1") for name, value in response.headers}
        value = json.loads(response.content) if response.content else None
        return Answer(value=value, index=int(received.get("x-consul-index", "0")))

    async def _exchange(
        self, method: str, url: str, content: bytes, token: str, patience: float
    ) -> httpcore2.Response:
        headers = [(FORWARDED, self._own), ("Content-Length", str(len(content)))]
        if token:
            headers.append(("X-Consul-Token", token))
        timeout = {"connect": _CONNECT_SECONDS, "read": patience, "write": _ANSWER_SECONDS, "pool": None}
        try:
            response = await self._pool.request(
                method, url, headers=headers, content=content, extensions={"timeout": timeout}
            )
        except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
            raise ApiError(500, _dial_error(url, error)) from error
        except httpcore2.TimeoutException as error:
            raise ApiError(500, "rpc error making call: i/o timeout") from error
        except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            raise ApiError(500, "rpc error making call: EOF") from error
        if response.status >= 400:
            text = response.content.decode("utf-8", "replace")
            # A 400 is about the request and was judged by the first agent it met in Consul, not over RPC.
            prefix = "" if response.status == 400 else "rpc error making call: "
            raise ApiError(response.status, f"{prefix}{text}")
        return response


def _parameters(request: Request) -> str:
    return urlencode(
        [
            (name, value)
            for name, values in request.query_lists.items()
            for value in values
            if name not in {"dc", "token"}
        ]
    )


def _dial_error(url: str, error: Exception) -> str:
    where = urlsplit(url)
    failure = dial_failure(f"{where.hostname}:{where.port}", error)
    return f"rpc error getting client: failed to get conn: {failure}"
