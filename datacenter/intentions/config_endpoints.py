"""`/v1/config`: service-intentions, service-defaults and proxy-defaults.

See docs/consul-api.md#intentions and #registration.

They are written in the primary only; a secondary forwards writes and reads its replica.
"""

from __future__ import annotations

from functools import partial

from datacenter.http.context import Datacenter, QueryMeta, Reply, Request, Route
from datacenter.http.frame import TEXT
from datacenter.intentions.config_entries import (
    GLOBAL,
    PROXY_DEFAULTS,
    delete_entry,
    read_entry,
    require_kind,
    write_entry,
)
from datacenter.intentions.endpoints import in_primary
from datacenter.intentions.entry import KIND as SERVICE_INTENTIONS
from datacenter.services.central_defaults import CONFIG_ENTRIES, entry_key
from datacenter.state.acl import require
from datacenter.state.errors import ApiError
from datacenter.state.store import Document, Row


def routes(dc: Datacenter) -> list[Route]:
    """Return every endpoint of this module."""
    return [
        Route("PUT", "/v1/config", in_primary(dc, _write)),
        Route("GET", "/v1/config/{kind}/{name:path}", partial(_read, dc)),
        Route("DELETE", "/v1/config/{kind}/{name:path}", in_primary(dc, _delete)),
        Route("GET", "/v1/config/{kind}", partial(_list, dc)),
    ]


async def _read(dc: Datacenter, request: Request) -> Reply:
    kind, name = request.params["kind"], request.params["name"]
    require_kind(kind)
    require(_may_read(request, kind, name))
    row = dc.store.table(CONFIG_ENTRIES).get(entry_key(kind, name))
    if row is None:
        # A reply instead of an ApiError, since a client may block on a missing entry.
        return Reply(
            value=f'Config entry not found for "{kind}" / "{name}"',
            status=404,
            content_type=TEXT,
            topics=(CONFIG_ENTRIES,),
            meta=QueryMeta.PLAIN,
        )
    return Reply(value=_shown(row), topics=(CONFIG_ENTRIES,), meta=QueryMeta.PLAIN)


async def _list(dc: Datacenter, request: Request) -> Reply:
    kind = request.params["kind"]
    require_kind(kind)
    request.refuse_unknown()
    rows = [row for row in dc.store.table(CONFIG_ENTRIES).rows() if row.value["Kind"] == kind]
    shown = [_shown(row) for row in rows if _may_read(request, kind, row.value["Name"])]
    return Reply(value=shown, topics=(CONFIG_ENTRIES,), meta=QueryMeta.PLAIN)


async def _write(dc: Datacenter, request: Request) -> Reply:
    entry = read_entry(request.body)
    require(_may_write(request, entry["Kind"], entry["Name"]))
    if "cas" in request.query and not _is_current(dc, entry, request.query["cas"]):
        return Reply(value=False)
    write_entry(dc.store, entry)
    return Reply(value=True)


async def _delete(dc: Datacenter, request: Request) -> Reply:
    kind, name = request.params["kind"], request.params["name"]
    require_kind(kind, 400)
    if kind == PROXY_DEFAULTS:
        name = GLOBAL  # whatever the name in the path is
    require(_may_write(request, kind, name))
    delete_entry(dc.store, kind, name)
    return Reply(value={})


def _is_current(dc: Datacenter, entry: Document, cas: str) -> bool:
    """Return whether the entry is as its writer last saw it: by index, 0 for a missing entry."""
    if not (cas.isascii() and cas.isdigit()):
        raise ApiError(500, f'strconv.ParseUint: parsing "{cas}": invalid syntax')
    row = dc.store.table(CONFIG_ENTRIES).get(entry_key(entry["Kind"], entry["Name"]))
    return (row.modify_index if row else 0) == int(cas)


def _shown(row: Row) -> Document:
    return {**row.value, "CreateIndex": row.create_index, "ModifyIndex": row.modify_index}


def _may_read(request: Request, kind: str, name: str) -> bool:
    if kind == SERVICE_INTENTIONS:
        return request.authorizer.intention_read(name)
    return kind == PROXY_DEFAULTS or request.authorizer.service_read(name)


def _may_write(request: Request, kind: str, name: str) -> bool:
    if kind == SERVICE_INTENTIONS:
        return request.authorizer.intention_write(name)
    return (
        request.authorizer.operator_write()
        if kind == PROXY_DEFAULTS
        else request.authorizer.service_write(name)
    )
