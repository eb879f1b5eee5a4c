"""/v1/health: the instances of a service with all checks that decide about their health.

See docs/consul-api.md#discovery.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from datacenter.http.context import Datacenter, QueryMeta, Reply, Request, Route
from datacenter.http.filter import CHECK_SHAPE, HEALTH_SHAPE, compile_filter, service_document
from datacenter.services import translate
from datacenter.services.coordinates import sort_by_distance
from datacenter.services.views import health_check, health_entry
from datacenter.state.acl import Authorizer
from datacenter.state.errors import ApiError
from datacenter.state.inventory import CHECKS, NODES, Instance
from datacenter.state.store import Document, Row

_STATES = ("any", "passing", "warning", "critical")
_TRUE = {"1", "t", "T", "true", "TRUE", "True"}
_FALSE = {"0", "f", "F", "false", "FALSE", "False"}


def routes(dc: Datacenter) -> list[Route]:
    """The routes of this module."""
    instances = partial(Route, translate=translate.health_entries, cached=True)
    return [
        instances("GET", "/v1/health/service/{name:path}", partial(_service, dc)),
        instances("GET", "/v1/health/connect/{name:path}", partial(_connect, dc)),
        Route("GET", "/v1/health/node/{name:path}", partial(_node, dc)),
        Route("GET", "/v1/health/checks/{name:path}", partial(_checks, dc)),
        Route("GET", "/v1/health/state/{state:path}", partial(_state, dc)),
    ]


async def _service(dc: Datacenter, request: Request) -> Reply:
    return _instances(dc, request, "service")


async def _connect(dc: Datacenter, request: Request) -> Reply:
    if not request.authorizer.service_read(_name(request)):
        # Consul answers before it reads anything: without a leader, and nothing to wait for.
        return Reply(value=[], index=1, known_leader=False, meta=QueryMeta.CONSISTENT)
    return _instances(dc, request, "connect")


def _instances(dc: Datacenter, request: Request, kind: str) -> Reply:
    name, inventory = _name(request), dc.inventory
    found = inventory.connect_instances(name) if kind == "connect" else inventory.instances(name)
    topics = inventory.instance_topics(kind, name)
    keep = compile_filter(request.query.get("filter", ""), HEALTH_SHAPE)
    wanted = [
        instance
        for instance in visible(found, request.authorizer)
        if _matches_parameters(instance, request) and keep(_document(dc, instance))
    ]
    if _passing_only(dc, request, topics):
        wanted = [instance for instance in wanted if all_passing(instance)]
    wanted = sort_by_distance(dc, wanted, request.query.get("near", ""))
    return Reply(
        value=[health_entry(instance, dc.settings.name) for instance in wanted],
        topics=topics,
        meta=QueryMeta.CONSISTENT,
        # The streaming backend serves blocking and cached reads, and knows no leader:
        # docs/consul-api.md#response-headers.
        streaming=request.index > 0 or request.flag("cached"),
    )


def visible(instances: Iterable[Instance], authorizer: Authorizer) -> list[Instance]:
    """Return the instances whose service and node the token may see; others are left out silently."""
    return [
        instance
        for instance in instances
        if authorizer.service_read(instance.service.value["Service"])
        and authorizer.node_read(instance.node.key)
    ]


def all_passing(instance: Instance) -> bool:
    """Return whether an instance passes as `?passing` means it: without a warning."""
    return all(check.value["Status"] == "passing" for check in instance.checks)


def _passing_only(dc: Datacenter, request: Request, topics: tuple[str, ...]) -> bool:
    text = request.query.get("passing")
    if text is None:
        return False
    if text in _TRUE or text == "":
        return True
    if text in _FALSE:
        return False
    # Consul checks this parameter only after the read, hence the headers of an answer.
    headers = {
        "X-Consul-Index": str(dc.store.index_of(topics)),
        "X-Consul-Knownleader": "true",
        "X-Consul-Lastcontact": "0",
        "X-Consul-Query-Backend": "blocking-query",
        "X-Consul-Effective-Consistency": "leader",
    }
    raise ApiError(400, "Invalid value for ?passing", headers)


def _matches_parameters(instance: Instance, request: Request) -> bool:
    """Return whether an instance has every `?tag=` and `?node-meta=key:value`."""
    tags = {tag.lower() for tag in instance.service.value["Tags"]}
    if any(tag.lower() not in tags for tag in request.query_lists.get("tag", [])):
        return False
    meta = instance.node.value["Meta"]
    pairs = (pair.partition(":") for pair in request.query_lists.get("node-meta", []))
    return all(meta.get(key) == value for key, _, value in pairs)


def _document(dc: Datacenter, instance: Instance) -> Document:
    return {
        "Node": {**instance.node.value, "Datacenter": dc.settings.name},
        "Service": service_document(instance.service.value),
        "Checks": [check.value for check in instance.checks],
    }


async def _node(dc: Datacenter, request: Request) -> Reply:
    node = dc.inventory.node(_required(request, "name", "Missing node name"))
    return _check_rows(request, [] if node is None else dc.inventory.node_checks(node.key))


async def _checks(dc: Datacenter, request: Request) -> Reply:
    name = _name(request).lower()
    rows = [row for row in dc.inventory.checks.rows() if row.value["ServiceName"].lower() == name]
    return _check_rows(request, rows)


async def _state(dc: Datacenter, request: Request) -> Reply:
    state = _required(request, "state", "Missing check state")
    rows = dc.inventory.checks.rows()
    wanted = [row for row in rows if state in {"any", row.value["Status"]}]
    return _check_rows(request, wanted if state in _STATES else [])


def _check_rows(request: Request, rows: list[Row]) -> Reply:
    authorizer = request.authorizer
    keep = compile_filter(request.query.get("filter", ""), CHECK_SHAPE)
    shown = [
        health_check(row)
        for row in rows
        if authorizer.node_read(row.value["Node"])
        and (not row.value["ServiceName"] or authorizer.service_read(row.value["ServiceName"]))
        and keep(row.value)
    ]
    return Reply(value=shown, topics=(CHECKS, NODES), meta=QueryMeta.CONSISTENT)


def _name(request: Request) -> str:
    return _required(request, "name", "Missing service name")


def _required(request: Request, parameter: str, complaint: str) -> str:
    value = request.params[parameter]
    if not value:
        raise ApiError(400, complaint)
    return value
