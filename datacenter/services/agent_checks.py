"""/v1/agent/check…: checks, and the reports of workloads about theirs.

See docs/consul-api.md#agent-services.
"""

from __future__ import annotations

from functools import partial

from datacenter.http.context import Datacenter, Reply, Request, Route
from datacenter.http.decode import Fields, decode
from datacenter.http.filter import CHECK_SHAPE, compile_filter
from datacenter.services.check_definitions import (
    NODE_MAINTENANCE,
    STATUSES,
    define_check,
    set_check,
    set_maintenance,
)
from datacenter.services.definitions import CHECK
from datacenter.services.views import agent_check
from datacenter.state.acl import require
from datacenter.state.errors import ApiError, permission_denied
from datacenter.state.store import Document
from datacenter.state.validation import check_mistake

_UPDATE = Fields("checkUpdate", {"Status": str, "Output": str})
_ENABLE = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}
_NAMED_STATUS = {"pass": "passing", "warn": "warning", "fail": "critical"}


def routes(dc: Datacenter) -> list[Route]:
    """Return the routes of this module."""
    local = partial(Route, forwards=False)
    return [
        local("GET", "/v1/agent/checks", partial(_checks, dc)),
        local("PUT", "/v1/agent/check/register", partial(_register, dc)),
        local("PUT", "/v1/agent/check/deregister/{id:path}", partial(_deregister, dc)),
        *(
            local("PUT", f"/v1/agent/check/{word}/{{id:path}}", partial(_heard, dc, status))
            for word, status in _NAMED_STATUS.items()
        ),
        local("PUT", "/v1/agent/check/update/{id:path}", partial(_update, dc)),
        local("PUT", "/v1/agent/maintenance", partial(_node_maintenance, dc)),
    ]


async def _checks(dc: Datacenter, request: Request) -> Reply:
    keep = compile_filter(request.query.get("filter", ""), CHECK_SHAPE)
    shown = {
        row.value["CheckID"]: agent_check(row.value)
        for row in dc.inventory.agent_checks()
        if _may_read(dc, request, row.value) and keep(row.value)
    }
    return Reply(value=shown)


async def _register(dc: Datacenter, request: Request) -> Reply:
    given = decode(request.body, CHECK)
    if not given.get("Name"):
        raise ApiError(400, "Missing check name")
    status = given.get("Status", "")
    if status and status not in STATUSES:
        raise ApiError(400, "Bad check status")
    if mistake := check_mistake(given):
        raise ApiError(400, f"Invalid check: {mistake}")
    service = None
    if identifier := given.get("ServiceID"):
        row = dc.inventory.service(dc.settings.node_name, identifier)
        if row is None:
            raise ApiError(500, f'ServiceID "{identifier}" does not exist')
        service = row.value
    _require_write(dc, request, service["Service"] if service else "")
    define_check(dc, {**given, "CheckID": given.get("ID") or given["Name"]}, service, own=True)
    return Reply()


async def _deregister(dc: Datacenter, request: Request) -> Reply:
    """Answer 200 for an unknown check too, as the recording `check-deregister-404` does."""
    row = dc.inventory.check(dc.settings.node_name, request.params["id"])
    if row is not None:
        _require_write(dc, request, row.value["ServiceName"])
        dc.inventory.remove_check(dc.settings.node_name, request.params["id"])
    return Reply()


def maintenance_wanted(request: Request) -> bool:
    """Return what `?enable=` says. Raises ApiError 400."""
    if "enable" not in request.query:
        raise ApiError(400, "Missing value for enable")
    text = request.query["enable"]
    if text.lower() not in _ENABLE:
        raise ApiError(400, f'Invalid value for enable: "{text}"')
    return _ENABLE[text.lower()]


async def _node_maintenance(dc: Datacenter, request: Request) -> Reply:
    wanted = maintenance_wanted(request)
    require(request.authorizer.node_write(dc.settings.node_name))
    set_maintenance(dc, NODE_MAINTENANCE, None, request.query.get("reason", "") if wanted else None)
    return Reply()


async def _heard(dc: Datacenter, status: str, request: Request) -> Reply:
    return _set(dc, request, status, request.query.get("note", ""))


async def _update(dc: Datacenter, request: Request) -> Reply:
    given = decode(request.body, _UPDATE)
    status = given.get("Status", "")
    if status not in STATUSES:
        raise ApiError(400, f"Invalid check status: '{status}'")
    return _set(dc, request, status, given.get("Output", ""))


def _set(dc: Datacenter, request: Request, status: str, output: str) -> Reply:
    identifier = request.params["id"]
    authorizer = request.authorizer
    row = dc.inventory.check(dc.settings.node_name, identifier)
    definition = dc.inventory.definitions.get(identifier)
    if row is None or definition is None or definition.value["Kind"] != "ttl":
        raise ApiError(500, f'CheckID "{identifier}" does not have associated TTL')
    if row.value["ServiceName"]:
        require(authorizer.service_write(row.value["ServiceName"]))
    else:
        require(authorizer.node_write(dc.settings.node_name))
    dc.heartbeats.beat(identifier)
    set_check(dc, identifier, status, output, heard=True)
    return Reply()


def _require_write(dc: Datacenter, request: Request, service: str) -> None:
    if service:
        if not request.authorizer.service_write(service):
            raise permission_denied(f"Missing service:write on {service}")
    else:
        require(request.authorizer.node_write(dc.settings.node_name))


def _may_read(dc: Datacenter, request: Request, check: Document) -> bool:
    if check["ServiceName"]:
        return request.authorizer.service_read(check["ServiceName"])
    return request.authorizer.node_read(dc.settings.node_name)
