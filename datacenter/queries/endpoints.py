"""/v1/query: creating, reading, changing prepared queries; execution is in `datacenter.queries.execution`.

See docs/consul-api.md#prepared-queries.
"""

from __future__ import annotations

import uuid
from functools import partial

from datacenter.http.context import Datacenter, QueryMeta, Reply, Request, Route
from datacenter.http.decode import decode
from datacenter.queries.definitions import QUERIES, QUERY, InvalidQuery, is_uuid, normal_query, resolve
from datacenter.state.acl import require
from datacenter.state.errors import UNANSWERED, ApiError
from datacenter.state.store import Document, Row

_NO_UUID = "failed prepared query lookup: index error: UUID must be 36 characters"
HIDDEN_TOKEN = "<hidden>"  # noqa: S105  what is shown instead of a token


def routes(dc: Datacenter) -> list[Route]:
    """The routes of this module."""
    return [
        Route("GET", "/v1/query", partial(_list, dc)),
        Route("POST", "/v1/query", partial(_create, dc)),
        Route("GET", "/v1/query/{id}/explain", partial(_explain, dc), allow="GET"),
        Route("GET", "/v1/query/{id:path}", partial(_get, dc)),
        Route("PUT", "/v1/query/{id:path}", partial(_update, dc)),
        Route("DELETE", "/v1/query/{id:path}", partial(_delete, dc)),
    ]


def find_query(dc: Datacenter, name_or_id: str) -> Document:
    """Return the query to execute or explain. Raises ApiError 404."""
    query = resolve((row.value for row in dc.store.table(QUERIES).rows()), name_or_id)
    if query is None:
        raise ApiError(404, "Query not found")
    return query


def query_meta(request: Request) -> Document:
    """Return the headers that 1.10 repeats in the body of an execution or explanation."""
    return {
        "Index": 1,
        "LastContact": 0,
        "KnownLeader": True,
        "ConsistencyLevel": "stale" if request.flag("stale") else "leader",
        "NotModified": False,
        "Backend": 0,
    }


async def _create(dc: Datacenter, request: Request) -> Reply:
    given = decode(request.body, QUERY)
    require(_may_write(request, given.get("Name", "")))
    if given.get("ID"):
        raise ApiError(500, "ID must be empty when creating a new prepared query")
    identifier = str(uuid.UUID(int=dc.rng.getrandbits(128), version=4))
    _put(dc, given, identifier)
    return Reply(value={"ID": identifier})


async def _update(dc: Datacenter, request: Request) -> Reply:
    given = decode(request.body, QUERY)
    row = _existing(dc, request.params["id"])
    require(_may_write(request, row.value["Name"]) and _may_write(request, given.get("Name", "")))
    _put(dc, given, row.key)
    return Reply()


async def _delete(dc: Datacenter, request: Request) -> Reply:
    row = _existing(dc, request.params["id"])
    require(_may_write(request, row.value["Name"]))
    dc.store.table(QUERIES).delete(row.key)
    return Reply()


async def _list(dc: Datacenter, request: Request) -> Reply:
    request.refuse_unknown()
    rows = [row for row in dc.store.table(QUERIES).rows() if _may_read(request, row.value["Name"])]
    return Reply(value=[_shown(row) for row in rows], topics=(QUERIES,), meta=QueryMeta.CONSISTENT)


async def _get(dc: Datacenter, request: Request) -> Reply:
    identifier = request.params["id"]
    if not is_uuid(identifier):
        raise ApiError(500, _NO_UUID, UNANSWERED)
    row = dc.store.table(QUERIES).get(identifier)
    if row is None:
        raise ApiError(404, "Query not found")
    require(_may_read(request, row.value["Name"]))
    return Reply(value=[_shown(row)], topics=(QUERIES,), meta=QueryMeta.CONSISTENT)


async def _explain(dc: Datacenter, request: Request) -> Reply:
    query = find_query(dc, request.params["id"])
    require(_may_read(request, query["Name"]))
    row = dc.store.table(QUERIES).get(query["ID"])
    assert row is not None, "a query that was found is in the table"
    shown = {**_shown(row), "Service": query["Service"]}
    return Reply(value={"Query": shown, **query_meta(request)}, index=1, meta=QueryMeta.CONSISTENT)


def _put(dc: Datacenter, given: Document, identifier: str) -> None:
    try:
        query = normal_query(given, identifier)
    except InvalidQuery as error:
        raise ApiError(500, str(error)) from error
    table = dc.store.table(QUERIES)
    others = [row.value for row in table.rows() if row.key != identifier]
    name = query["Name"]
    if name and any(other["Name"].lower() == name.lower() for other in others):
        raise ApiError(500, f"raft apply failed: name '{name}' aliases an existing query name")
    if any(other["ID"] == name for other in others):
        raise ApiError(500, f"raft apply failed: name '{name}' aliases an existing query ID")
    table.put(identifier, query)


def _existing(dc: Datacenter, identifier: str) -> Row:
    if not is_uuid(identifier):
        raise ApiError(500, f"Prepared Query lookup failed: {_NO_UUID}")
    row = dc.store.table(QUERIES).get(identifier)
    if row is None:
        raise ApiError(500, f"Cannot modify non-existent prepared query: '{identifier}'")
    return row


def _shown(row: Row) -> Document:
    token = HIDDEN_TOKEN if row.value["Token"] else ""
    return {**row.value, "Token": token, "CreateIndex": row.create_index, "ModifyIndex": row.modify_index}


def _may_read(request: Request, name: str) -> bool:
    return request.authorizer.query_read(name)


def _may_write(request: Request, name: str) -> bool:
    return request.authorizer.query_write(name)
