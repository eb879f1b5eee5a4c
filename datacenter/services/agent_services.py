"""/v1/agent/service…: the services of this agent.

See docs/consul-api.md#agent-services and #blocking-by-hash.
"""

from __future__ import annotations

from functools import partial

from datacenter.http.context import Datacenter, Reply, Request, Route
from datacenter.http.decode import decode
from datacenter.http.filter import SERVICE_SHAPE, Filter, compile_filter, service_document
from datacenter.services.agent_checks import maintenance_wanted
from datacenter.services.central_defaults import CONFIG_ENTRIES, content_hash, merged
from datacenter.services.check_definitions import (
    MAINTENANCE,
    SERVICE_MAINTENANCE,
    define_check,
    set_maintenance,
)
from datacenter.services.definitions import SERVICE
from datacenter.services.registration import Invalid, Registered, expand
from datacenter.services.views import agent_health_check, agent_service
from datacenter.state.acl import require
from datacenter.state.errors import ApiError, permission_denied
from datacenter.state.inventory import SERVER_SERVICE, SERVICES
from datacenter.state.store import Document, Row
from datacenter.state.validation import PROXY_KIND

_WORST = ("passing", "warning", "critical", "maintenance")
_HEALTH_STATUS = {"passing": 200, "warning": 429, "critical": 503, "maintenance": 503}


def routes(dc: Datacenter) -> list[Route]:
    """The routes of this module."""
    local = partial(Route, forwards=False)
    return [
        local("GET", "/v1/agent/services", partial(_services, dc)),
        local("PUT", "/v1/agent/service/register", partial(_register, dc)),
        local("PUT", "/v1/agent/service/deregister/{id:path}", partial(_deregister, dc)),
        local("PUT", "/v1/agent/service/maintenance/{id:path}", partial(_maintenance, dc)),
        local("GET", "/v1/agent/service/{id:path}", partial(_service, dc)),
        local("GET", "/v1/agent/health/service/id/{id:path}", partial(_health_by_id, dc)),
        local("GET", "/v1/agent/health/service/name/{name:path}", partial(_health_by_name, dc)),
    ]


async def _services(dc: Datacenter, request: Request) -> Reply:
    keep = compile_filter(request.query.get("filter", ""), SERVICE_SHAPE)
    authorizer = request.authorizer
    shown = {
        row.value["ID"]: agent_service(merged(dc.store, row.value), dc.settings.name)
        for row in _candidates(dc, keep)
        if authorizer.service_read(row.value["Service"]) and keep(service_document(row.value))
    }
    return Reply(value=shown)


def _candidates(dc: Datacenter, keep: Filter) -> list[Row]:
    """Return the services among which are all that pass: each of a thousand sidecars asks for its own."""
    kind, identifier = keep.fixed.get(("Kind",)), keep.fixed.get(("Proxy", "DestinationServiceID"))
    if kind == PROXY_KIND and identifier:
        return dc.inventory.agent_proxies_of(identifier)
    return dc.inventory.agent_services()


async def _service(dc: Datacenter, request: Request) -> Reply:
    authorizer = request.authorizer  # an unknown token is refused before an unknown service
    row = _known(dc, request.params["id"])
    if row is None:
        raise ApiError(404, f"unknown service ID: {request.params['id']}")
    require(authorizer.service_read(row.value["Service"]))
    view = agent_service(merged(dc.store, row.value), dc.settings.name)
    digest = content_hash(view)
    return Reply(
        value={**view, "ContentHash": digest},
        content_hash=digest,
        topics=(SERVICES, CONFIG_ENTRIES),
    )


async def _register(dc: Datacenter, request: Request) -> Reply:
    definition = decode(request.body, SERVICE)
    ports = {row.value["ID"]: row.value["Port"] for row in dc.inventory.agent_services()}
    try:
        registered = expand(definition, ports)
    except Invalid as error:
        raise ApiError(error.status, str(error)) from error
    for each in registered:
        _require_register(dc, request, each.service)
    with dc.store.transaction():
        for each in registered:
            _store(dc, each, replace_checks="replace-existing-checks" in request.query)
        # A registration that no longer asks for a sidecar removes the one it had asked for.
        if len(registered) == 1:
            _remove_sidecar(dc, registered[0].service["ID"])
    return Reply()


def _require_register(dc: Datacenter, request: Request, service: Document) -> None:
    """Require write on its name, on a proxy's destination, and on the name it had before."""
    names = [service["Service"]]
    if service["Kind"] == PROXY_KIND:
        names.append(service["Proxy"]["DestinationServiceName"])
    before = _known(dc, service["ID"])
    if before is not None:
        names.append(before.value["Service"])
    for name in names:
        if not request.authorizer.service_write(name):
            raise permission_denied(f"Missing service:write on {name}")


def _store(dc: Datacenter, registered: Registered, *, replace_checks: bool) -> None:
    node, service, inventory = dc.settings.node_name, registered.service, dc.inventory
    inventory.put_service(node, service)
    wanted = {check["CheckID"] for check in registered.checks}
    if replace_checks:
        for row in inventory.agent_checks():
            if row.value["ServiceID"] == service["ID"] and row.value["CheckID"] not in wanted:
                inventory.remove_check(node, row.value["CheckID"])
    for check in registered.checks:
        define_check(dc, check, service)


async def _deregister(dc: Datacenter, request: Request) -> Reply:
    if not request.params["id"]:
        raise ApiError(500, "ServiceID missing")
    if not dc.settings.acls_enabled and _known(dc, request.params["id"]) is None:
        return Reply()  # Consul looks the service up only to check rights
    row = _required(dc, request, 500, 'Unknown service "{}"')
    with dc.store.transaction():
        dc.inventory.remove_service(dc.settings.node_name, row.value["ID"])
        _remove_sidecar(dc, row.value["ID"])
    return Reply()


def _remove_sidecar(dc: Datacenter, parent: str) -> None:
    sidecar = _known(dc, f"{parent}-sidecar-proxy")
    if sidecar is not None and sidecar.value["Sidecar"]:
        dc.inventory.remove_service(dc.settings.node_name, sidecar.value["ID"])


async def _maintenance(dc: Datacenter, request: Request) -> Reply:
    wanted = maintenance_wanted(request)
    row = _required(dc, request, 404, 'No service registered with ID "{}"')
    identifier = f"{SERVICE_MAINTENANCE}{row.value['ID']}"
    set_maintenance(dc, identifier, row.value, request.query.get("reason", "") if wanted else None)
    return Reply()


async def _health_by_id(dc: Datacenter, request: Request) -> Reply:
    identifier = request.params["id"]
    row = _known(dc, identifier)
    if row is None:
        return _health_reply("critical", _absent(), f"ServiceId {identifier} not found", status=404)
    require(request.authorizer.service_read(row.value["Service"]))
    status, view = _health(dc, row)
    return _health_reply(status, view, status)


async def _health_by_name(dc: Datacenter, request: Request) -> Reply:
    name = request.params["name"]
    require(request.authorizer.service_read(name))
    rows = [row for row in dc.inventory.agent_services() if row.value["Service"] == name]
    if not rows:
        return _health_reply("critical", [], f"ServiceName {name} Not Found", status=404)
    judged = [_health(dc, row) for row in rows]
    worst = max((status for status, _ in judged), key=_WORST.index)
    return _health_reply(worst, [view for _, view in judged], worst)


def _health(dc: Datacenter, row: Row) -> tuple[str, Document]:
    identifier = row.value["ID"]
    checks = [
        check.value for check in dc.inventory.agent_checks() if check.value["ServiceID"] in {"", identifier}
    ]
    statuses = [
        "maintenance" if check["CheckID"].startswith(MAINTENANCE) else check["Status"] for check in checks
    ]
    worst = max(statuses, key=_WORST.index, default="passing")
    service = agent_service(merged(dc.store, row.value), dc.settings.name)
    shown = [agent_health_check(check) for check in checks]
    return worst, {"AggregatedStatus": worst, "Service": service, "Checks": shown}


def _absent() -> Document:
    return {"AggregatedStatus": "critical", "Service": None, "Checks": None}


def _health_reply(
    worst: str, value: Document | list[Document], reason: str, *, status: int | None = None
) -> Reply:
    code = _HEALTH_STATUS[worst] if status is None else status
    return Reply(value=value, status=code, headers={"X-Consul-Reason": reason})


def _required(dc: Datacenter, request: Request, status: int, complaint: str) -> Row:
    """Return the service of the path, if the token may change it. Raises ApiError."""
    authorizer = request.authorizer
    row = _known(dc, request.params["id"])
    if row is None:
        raise ApiError(status, complaint.format(request.params["id"]))
    require(authorizer.service_write(row.value["Service"]))
    return row


def _known(dc: Datacenter, identifier: str) -> Row | None:
    if identifier == SERVER_SERVICE:
        return None
    return dc.inventory.service(dc.settings.node_name, identifier)
