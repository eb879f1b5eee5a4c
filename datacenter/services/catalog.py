"""/v1/catalog: registrations without their health, and registration from outside.

See docs/consul-api.md#discovery.
"""

from __future__ import annotations

from functools import partial

from datacenter.http.context import Datacenter, QueryMeta, Reply, Request, Route
from datacenter.http.decode import decode
from datacenter.http.filter import (
    CATALOG_SERVICE_SHAPE,
    NODE_SHAPE,
    SERVICE_SHAPE,
    compile_filter,
    service_document,
)
from datacenter.services import translate
from datacenter.services.coordinates import sort_by_distance
from datacenter.services.definitions import CATALOG_DEREGISTER, CATALOG_REGISTER
from datacenter.services.health import visible
from datacenter.services.registration import normal_service
from datacenter.services.views import (
    catalog_service,
    check_definition,
    flat_service,
    health_check,
    health_node,
)
from datacenter.state.acl import require
from datacenter.state.errors import ApiError
from datacenter.state.inventory import NODES, SERVICES
from datacenter.state.store import Document
from datacenter.state.validation import service_mistakes


def routes(dc: Datacenter) -> list[Route]:
    """The routes of this module."""
    services = partial(Route, translate=translate.catalog_services, cached=True)
    nodes = partial(Route, translate=translate.catalog_nodes)
    return [
        Route("GET", "/v1/catalog/datacenters", partial(_datacenters, dc), forwards=False),
        Route("GET", "/v1/catalog/services", partial(_services, dc)),
        services("GET", "/v1/catalog/service/{name:path}", partial(_service, dc)),
        services("GET", "/v1/catalog/connect/{name:path}", partial(_connect, dc)),
        nodes("GET", "/v1/catalog/nodes", partial(_nodes, dc)),
        Route("GET", "/v1/catalog/node/{name:path}", partial(_node, dc), translate=translate.catalog_node),
        nodes("GET", "/v1/internal/ui/nodes", partial(_ui_nodes, dc)),
        Route("PUT", "/v1/catalog/register", partial(_register, dc)),
        Route("PUT", "/v1/catalog/deregister", partial(_deregister, dc)),
    ]


async def _datacenters(dc: Datacenter, request: Request) -> Reply:  # noqa: ARG001  a handler takes a request
    return Reply(value=dc.federation.datacenters())


async def _services(dc: Datacenter, request: Request) -> Reply:
    names: dict[str, set[str]] = {}
    for row in dc.inventory.services.rows():
        if request.authorizer.service_read(row.value["Service"]):
            names.setdefault(row.value["Service"], set()).update(row.value["Tags"])
    shown = {name: sorted(tags) for name, tags in sorted(names.items())}
    return Reply(value=shown, topics=(SERVICES,), meta=QueryMeta.CONSISTENT)


async def _service(dc: Datacenter, request: Request) -> Reply:
    return _instances(dc, request, "service")


async def _connect(dc: Datacenter, request: Request) -> Reply:
    return _instances(dc, request, "connect")


def _instances(dc: Datacenter, request: Request, kind: str) -> Reply:
    name = request.params["name"]
    if not name:
        raise ApiError(400, "Missing service name")
    inventory = dc.inventory
    found = inventory.connect_instances(name) if kind == "connect" else inventory.instances(name)
    keep = compile_filter(request.query.get("filter", ""), CATALOG_SERVICE_SHAPE)
    tags = set(request.query_lists.get("tag", []))
    seen = visible(found, request.authorizer)
    tagged = [instance for instance in seen if tags <= set(instance.service.value["Tags"])]
    near = sort_by_distance(dc, tagged, request.query.get("near", ""))
    shown = [flat_service(instance, dc.settings.name) for instance in near]
    return Reply(
        value=[entry for entry in shown if keep(entry)],
        topics=inventory.instance_topics(kind, name),
        meta=QueryMeta.CONSISTENT,
    )


async def _nodes(dc: Datacenter, request: Request) -> Reply:
    keep = compile_filter(request.query.get("filter", ""), NODE_SHAPE)
    rows = [row for row in dc.inventory.nodes.rows() if request.authorizer.node_read(row.key)]
    shown = [health_node(row, dc.settings.name) for row in rows if keep(row.value)]
    return Reply(value=shown, topics=(NODES,), meta=QueryMeta.CONSISTENT)


async def _node(dc: Datacenter, request: Request) -> Reply:
    name, authorizer = request.params["name"], request.authorizer
    if not name:
        raise ApiError(400, "Missing node name")
    keep = compile_filter(request.query.get("filter", ""), SERVICE_SHAPE)
    node = dc.inventory.node(name)
    value: Document | None = None
    if node is not None and authorizer.node_read(node.key):
        services = [
            row
            for row in dc.inventory.node_services(node.key)
            if authorizer.service_read(row.value["Service"]) and keep(service_document(row.value))
        ]
        value = {
            "Node": health_node(node, dc.settings.name),
            "Services": {row.value["ID"]: catalog_service(row) for row in services},
        }
    return Reply(value=value, topics=(NODES, SERVICES), meta=QueryMeta.CONSISTENT)


async def _ui_nodes(dc: Datacenter, request: Request) -> Reply:
    """Answer as the recording `wan-internal-ui-dc2`: only the node's own address is translated."""
    inventory = dc.inventory
    nodes = [row for row in inventory.nodes.rows() if request.authorizer.node_read(row.key)]
    shown = []
    for node in nodes:
        services = [catalog_service(row, tags=False) for row in inventory.node_services(node.key)]
        checks = [health_check(row, tags=False) for row in inventory.node_checks(node.key)]
        plain = {key: node.value[key] for key in ("ID", "Node", "Address", "TaggedAddresses", "Meta")}
        shown.append({**plain, "Services": services, "Checks": checks})
    return Reply(value=shown, topics=(NODES, SERVICES), meta=QueryMeta.PLAIN)


async def _register(dc: Datacenter, request: Request) -> Reply:
    """Register any node and service, as another agent's anti-entropy or a tool for external services does."""
    given = decode(request.body, CATALOG_REGISTER)
    name = given.get("Node", "")
    if not name or not given.get("Address"):
        raise ApiError(500, "Must provide node and address")
    require(request.authorizer.node_write(name))
    service = normal_service(given["Service"]) if "Service" in given else None
    if service is not None:
        if not service["Service"] and service["ID"]:
            raise ApiError(500, "Must provide service name with ID")
        require(request.authorizer.service_write(service["Service"]))
        if mistakes := service_mistakes(service):
            raise ApiError(500, mistakes[0])
    checks = [*given.get("Checks", []), *([given["Check"]] if "Check" in given else [])]
    with dc.store.transaction():
        dc.inventory.put_node(name, _catalog_node(given))
        if service is not None:
            dc.inventory.put_service(name, service)
        for check in checks:
            dc.inventory.put_check(name, _catalog_check(dc, name, check))
    return Reply(value=True)


async def _deregister(dc: Datacenter, request: Request) -> Reply:
    given = decode(request.body, CATALOG_DEREGISTER)
    name = given.get("Node", "")
    if not name:
        raise ApiError(500, "Must provide node")
    require(request.authorizer.node_write(name))
    if service := given.get("ServiceID"):
        dc.inventory.remove_service(name, service)
    elif check := given.get("CheckID"):
        dc.inventory.remove_check(name, check)
    else:
        dc.inventory.remove_node(name)
    return Reply(value=True)


def _catalog_node(given: Document) -> Document:
    return {
        "ID": given.get("ID", ""),
        "Node": given["Node"],
        "Address": given["Address"],
        "TaggedAddresses": given.get("TaggedAddresses", {}),
        "Meta": given.get("NodeMeta", {}),
    }


def _catalog_check(dc: Datacenter, node: str, given: Document) -> Document:
    identifier = given.get("CheckID") or given.get("Name", "")
    if not identifier:
        raise ApiError(500, "Must provide a check ID or name")
    service = dc.inventory.service(node, given.get("ServiceID", ""))
    if given.get("ServiceID") and service is None:
        raise ApiError(500, f"Unknown service ID '{given['ServiceID']}' for check ID '{identifier}'")
    return {
        "CheckID": identifier,
        "Name": given.get("Name", ""),
        "Status": given.get("Status") or "critical",
        "Notes": given.get("Notes", ""),
        "Output": given.get("Output", ""),
        "ServiceID": given.get("ServiceID", ""),
        "ServiceName": service.value["Service"] if service else "",
        "ServiceTags": service.value["Tags"] if service else [],
        "Type": given.get("Type", ""),
        "Interval": given.get("Interval", ""),
        "Timeout": given.get("Timeout", ""),
        "ExposedPort": 0,
        "Definition": check_definition(given.get("Definition", {})),
    }
