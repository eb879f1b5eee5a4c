"""Executes prepared queries: here first, then in the other datacenters.

See docs/consul-api.md#prepared-queries.

All instances of an answer are of one datacenter. The failover is a single hop: the other datacenter gets the
definition itself and does not fail over again.
"""

from __future__ import annotations

import logging
from functools import partial

from datacenter.http.context import Datacenter, QueryMeta, Reply, Request, Route
from datacenter.http.decode import Fields, decode
from datacenter.queries.definitions import QUERY, InvalidQuery, normal_query
from datacenter.queries.endpoints import find_query, query_meta
from datacenter.services import translate
from datacenter.services.coordinates import sort_by_distance
from datacenter.services.health import visible
from datacenter.services.views import health_entry
from datacenter.state.acl import Authorizer
from datacenter.state.errors import ApiError
from datacenter.state.inventory import Instance
from datacenter.state.store import Document

_REMOTE_PATH = "/v1/internal/query/execute-remote"
_REMOTE = Fields("PreparedQueryExecuteRemoteRequest", {"Query": QUERY, "Limit": int, "Connect": bool})

_logger = logging.getLogger("datacenter.queries.endpoints")


def routes(dc: Datacenter) -> list[Route]:
    """The routes of this module; they go before those of `queries`."""
    return [
        Route(
            "GET",
            "/v1/query/{id}/execute",
            partial(_execute, dc),
            translate=partial(translate.query_answer, dc.settings.name),
            cached=True,
            allow="GET",
        ),
        Route("POST", _REMOTE_PATH, partial(_execute_remote, dc), forwards=False),
    ]


async def _execute(dc: Datacenter, request: Request) -> Reply:
    limit = _limit(request.query.get("limit", ""))
    query = find_query(dc, request.params["id"])
    connect = _boolean(request.query.get("connect", ""))
    near = request.query.get("near") or query["Service"]["Near"]
    # A token stored with the query replaces the caller's.
    authorizer = request.resolve(query["Token"]) if query["Token"] else request.authorizer
    answer = _execute_here(dc, query, authorizer, connect=connect, limit=limit, near=near)
    if not answer["Nodes"]:
        token = query["Token"] or request.token
        answer = await _fail_over(dc, query, answer, token, connect=connect, limit=limit)
    if dc.settings.translate_wan_addrs and not request.forwarded:
        answer = {**answer, "Nodes": _translated(dc, answer)}
    return Reply(value={**answer, **query_meta(request)}, index=1, meta=QueryMeta.CONSISTENT)


async def _execute_remote(dc: Datacenter, request: Request) -> Reply:
    given = decode(request.body, _REMOTE)
    connect, limit = given.get("Connect", False), given.get("Limit", 0)
    try:
        query = normal_query(given.get("Query", {}), given.get("Query", {}).get("ID", ""))
    except InvalidQuery as error:
        raise ApiError(500, str(error)) from error
    return Reply(value=_execute_here(dc, query, request.authorizer, connect=connect, limit=limit, near=""))


def _execute_here(
    dc: Datacenter, query: Document, authorizer: Authorizer, *, connect: bool, limit: int, near: str
) -> Document:
    wanted = query["Service"]
    inventory, name = dc.inventory, wanted["Service"]
    mesh = connect or wanted["Connect"]
    found = inventory.connect_instances(name) if mesh else inventory.instances(name)
    chosen = [instance for instance in found if _qualifies(instance, wanted)]
    chosen = visible(chosen, authorizer)
    dc.rng.shuffle(chosen)
    if near:
        chosen = sort_by_distance(dc, chosen, near)
    if limit > 0:
        chosen = chosen[:limit]
    return {
        "Service": name,
        "Nodes": [health_entry(instance, dc.settings.name, tags=False) for instance in chosen],
        "DNS": query["DNS"],
        "Datacenter": dc.settings.name,
        "Failovers": 0,
    }


async def _fail_over(
    dc: Datacenter, query: Document, answer: Document, token: str, *, connect: bool, limit: int
) -> Document:
    """Return the answer of the first datacenter that has instances; else the last one's empty answer."""
    tried = 0
    for name in _failover_datacenters(dc, query["Service"]["Failover"]):
        base_url = dc.federation.base_url(name)
        if base_url is None:
            continue  # unknown datacenters are skipped and do not count
        tried += 1
        body = {"Query": query, "Connect": connect, "Limit": limit}
        try:
            remote = (await dc.forwarder.call("POST", base_url + _REMOTE_PATH, body=body, token=token)).value
        except ApiError as error:
            _logger.warning("prepared query failover to %s failed: %s", name, error.text)
            continue
        if not isinstance(remote, dict):
            continue
        answer = remote
        if answer["Nodes"]:
            break
    return {**answer, "Nodes": answer["Nodes"] or [], "Failovers": tried}


def _failover_datacenters(dc: Datacenter, failover: Document) -> list[str]:
    """Return the nearest N, then the listed ones, each once and without our own."""
    others = [name for name in dc.federation.datacenters() if name != dc.settings.name]
    order = [*others[: failover["NearestN"]], *(failover["Datacenters"] or [])]
    return [name for name in dict.fromkeys(order) if name != dc.settings.name]


def _qualifies(instance: Instance, wanted: Document) -> bool:
    ignored = set(wanted["IgnoreCheckIDs"] or [])
    statuses = {check.value["Status"] for check in instance.checks if check.value["CheckID"] not in ignored}
    if "critical" in statuses or (wanted["OnlyPassing"] and statuses - {"passing"}):
        return False
    tags = {tag.lower() for tag in instance.service.value["Tags"]}
    for tag in wanted["Tags"] or []:
        excluded = tag.startswith("!")
        if (tag.removeprefix("!").lower() in tags) == excluded:
            return False
    return _has(instance.node.value["Meta"], wanted["NodeMeta"]) and _has(
        instance.service.value["Meta"], wanted["ServiceMeta"]
    )


def _has(meta: Document, wanted: Document | None) -> bool:
    return all(meta.get(key) == value for key, value in (wanted or {}).items())


def _translated(dc: Datacenter, answer: Document) -> object:
    if answer["Datacenter"] == dc.settings.name:
        return answer["Nodes"]
    return translate.health_entries(answer["Nodes"])


def _limit(text: str) -> int:
    if not text:
        return 0
    try:
        return int(text)
    except ValueError:
        raise ApiError(500, f'Bad limit: strconv.Atoi: parsing "{text}": invalid syntax') from None


def _boolean(text: str) -> bool:
    if text.lower() in {"", "0", "f", "false"}:
        return False
    if text.lower() in {"1", "t", "true"}:
        return True
    raise ApiError(
        500, f"Error parsing 'connect' value: strconv.ParseBool: parsing \"{text}\": invalid syntax"
    )
