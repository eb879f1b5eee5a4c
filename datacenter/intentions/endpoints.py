"""The intention endpoints: list, match, check, exact, and the legacy ones by ID.

See docs/consul-api.md#intentions.

They are written in the primary only: a secondary forwards writes and reads its replica. A destination that
was edited through the legacy endpoints belongs to them until its last legacy source is gone, and the other
way round.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import partial

from datacenter.http.context import Datacenter, QueryMeta, Reply, Request, Route
from datacenter.http.decode import Fields, Mapped, decode, decode_or_bad_request
from datacenter.http.filter import INTENTION_SHAPE, compile_filter
from datacenter.intentions import authorize_endpoint
from datacenter.intentions.authorize_endpoint import acl_default
from datacenter.intentions.config_entries import delete_entry, write_entry
from datacenter.intentions.entry import KIND, PERMISSION, WILDCARD, normalised
from datacenter.intentions.model import (
    NAMESPACE,
    all_intentions,
    decide,
    entry_of,
    find_by_id,
    intention_of,
    match_destination,
    match_source,
)
from datacenter.queries.definitions import is_uuid
from datacenter.services.central_defaults import CONFIG_ENTRIES
from datacenter.state.acl import require
from datacenter.state.errors import UNANSWERED, ApiError, bad_request
from datacenter.state.store import Document, Row

_SHAPE = Fields(
    "IntentionRequest",
    {
        "ID": str,
        "Description": str,
        "SourceNS": str,
        "SourceName": str,
        "DestinationNS": str,
        "DestinationName": str,
        "SourceType": str,
        "Action": str,
        "Permissions": [PERMISSION],
        "Meta": Mapped(str),
        "Precedence": int,
        "Hash": str,
        "CreatedAt": str,
        "UpdatedAt": str,
        "CreateIndex": int,
        "ModifyIndex": int,
    },
)
_ROOT = "/v1/connect/intentions"
_NO_UUID = "failed config entry lookup: index error: UUID must be 36 characters"

_Handler = Callable[[Datacenter, Request], Awaitable[Reply]]


def routes(dc: Datacenter) -> list[Route]:
    """Return every endpoint of this module, and authorize."""
    return [
        *authorize_endpoint.routes(dc),
        Route("GET", f"{_ROOT}/match", partial(_match, dc)),
        Route("GET", f"{_ROOT}/check", partial(_check, dc)),
        Route("GET", f"{_ROOT}/exact", partial(_read_exact, dc)),
        Route("PUT", f"{_ROOT}/exact", in_primary(dc, _write_exact)),
        Route("DELETE", f"{_ROOT}/exact", in_primary(dc, _delete_exact)),
        Route("GET", _ROOT, partial(_list, dc)),
        Route("POST", _ROOT, in_primary(dc, _create)),
        Route("GET", f"{_ROOT}/{{id}}", partial(_read, dc)),
        Route("PUT", f"{_ROOT}/{{id}}", in_primary(dc, _update)),
        Route("DELETE", f"{_ROOT}/{{id}}", in_primary(dc, _delete)),
    ]


def in_primary(dc: Datacenter, handler: _Handler) -> Callable[[Request], Awaitable[Reply]]:
    """Return the handler itself in the primary, and a forwarding one in a secondary."""

    async def handle(request: Request) -> Reply:
        if dc.settings.is_primary:
            return await handler(dc, request)
        return await dc.forwarder.forward(request, dc.settings.primary_datacenter)

    return handle


async def _list(dc: Datacenter, request: Request) -> Reply:
    request.refuse_unknown()
    keep = compile_filter(request.query.get("filter", ""), INTENTION_SHAPE)
    shown = [each for each in all_intentions(dc.store) if _may_read(request, each) and keep(each)]
    return Reply(value=shown, topics=(CONFIG_ENTRIES,), meta=QueryMeta.PLAIN)


async def _match(dc: Datacenter, request: Request) -> Reply:
    for needed in ("by", "name"):  # an empty value is accepted, and matches nothing
        if needed not in request.query:
            raise ApiError(500, f"required query parameter '{needed}' not set")
    side = request.query["by"]
    if side not in {"source", "destination"}:
        raise ApiError(500, "'by' parameter must be one of 'source' or 'destination'")
    find = match_destination if side == "destination" else match_source
    answer: dict[str, list[Document] | None] = {}
    for asked in request.query_lists["name"]:
        name = _name(asked, "name", "match entry namespace", UNANSWERED)
        if not request.authorizer.intention_read(name):
            raise ApiError(403, "Permission denied", UNANSWERED)
        answer[asked] = find(dc.store, name) or None  # Go's nil, not its empty list
    return Reply(value=answer, topics=(CONFIG_ENTRIES,), meta=QueryMeta.CONSISTENT)


async def _check(dc: Datacenter, request: Request) -> Reply:
    source, destination = _ends(request, "source namespace", "destination namespace")
    if (kind := request.query.get("source-type", "consul")) != "consul":
        raise ApiError(500, f'unsupported SourceType: "{kind}"')
    require(request.authorizer.service_read(destination))
    allows, reason = acl_default(dc)
    # Here Consul looks for the rules of the source, and compares the destination exactly.
    names = {destination, WILDCARD}
    rules = [each for each in match_destination(dc.store, destination) if each["DestinationName"] in names]
    decision = decide(rules, source, namespace=NAMESPACE, default_allows=allows, default_reason=reason)
    return Reply(value={"Allowed": decision.allowed})


async def _read_exact(dc: Datacenter, request: Request) -> Reply:
    source, destination = _ends(request, "SourceNS", "DestinationNS")
    row = entry_of(dc.store, destination)
    found = [each for each in (row.value["Sources"] if row else []) if each["Name"] == source]
    if row is None or not found:
        raise ApiError(404, "Intention not found")
    return _shown(request, row, found[0])


async def _write_exact(dc: Datacenter, request: Request) -> Reply:
    source, destination = _ends(request)
    require(request.authorizer.intention_write(destination))
    body = decode_or_bad_request(request.body, _SHAPE)
    row = entry_of(dc.store, destination)
    known_meta = row.value.get("Meta", {}) if row else {}
    if body.get("Meta") and body["Meta"] != known_meta:
        text = ", or should be unchanged during an update." if row else ""
        raise ApiError(500, f"Meta must not be specified{text}")
    entry: Document = dict(row.value) if row else {"Name": destination, "Sources": []}
    entry["Sources"] = _with(entry["Sources"], _source(body, source), key="Name")
    write_entry(dc.store, normalised(entry))
    return Reply(value=True)


async def _delete_exact(dc: Datacenter, request: Request) -> Reply:
    source, destination = _ends(request)
    require(request.authorizer.intention_write(destination))
    row = entry_of(dc.store, destination)
    if row is not None and any(each["Name"] == source for each in row.value["Sources"]):
        rest = [each for each in row.value["Sources"] if each["Name"] != source]
        _replace_sources(dc, row, rest, legacy=False)
    return Reply(value=True)


async def _create(dc: Datacenter, request: Request) -> Reply:
    try:
        body = decode(request.body, _SHAPE)
    except ApiError as error:
        detail = error.text.removeprefix("Request decode failed: ")
        raise ApiError(500, f"Failed to decode request body: {detail}") from error
    destination = body.get("DestinationName", "")
    require(request.authorizer.intention_write(destination))
    if body.get("ID"):
        raise ApiError(500, "ID must be empty when creating a new intention")
    _check_legacy(body)
    row = entry_of(dc.store, destination)
    if row is not None:
        _require_legacy(row)
    at = _time(dc.clock())
    source = {
        **_source(body, body["SourceName"]),
        "LegacyID": str(uuid.UUID(int=dc.rng.getrandbits(128), version=4)),
        "LegacyMeta": body.get("Meta", {}),
        "LegacyCreateTime": at,
        "LegacyUpdateTime": at,
    }
    sources = [*(row.value["Sources"] if row else []), source]
    write_entry(dc.store, normalised({"Name": destination, "Sources": sources}, legacy=True), legacy=True)
    return Reply(value={"ID": source["LegacyID"]})


async def _read(dc: Datacenter, request: Request) -> Reply:
    if not is_uuid(request.params["id"]):
        raise bad_request(_NO_UUID)
    found = _found(dc, request.params["id"])
    if found is None:
        raise ApiError(404, "Intention not found")
    return _shown(request, *found)


async def _update(dc: Datacenter, request: Request) -> Reply:
    intention_id, body = request.params["id"], decode_or_bad_request(request.body, _SHAPE)
    found = _found(dc, intention_id)
    if found is None:
        raise ApiError(500, f"Cannot modify non-existent intention: '{intention_id}'")
    row, before = found
    _require_legacy(row)
    require(request.authorizer.intention_write(row.value["Name"]))
    if body.get("DestinationName", "") != row.value["Name"]:
        raise ApiError(500, "Cannot modify DestinationNS or DestinationName for an intention once it exists.")
    _check_legacy(body)
    source = {
        **_source(body, body["SourceName"]),
        "LegacyID": intention_id,
        "LegacyMeta": body.get("Meta", {}),
        "LegacyCreateTime": before["LegacyCreateTime"],
        "LegacyUpdateTime": _time(dc.clock()),
    }
    _replace_sources(dc, row, _with(row.value["Sources"], source, key="LegacyID"), legacy=True)
    return Reply(value={"ID": intention_id})


async def _delete(dc: Datacenter, request: Request) -> Reply:
    intention_id = request.params["id"]
    found = _found(dc, intention_id)
    if found is None:
        raise ApiError(500, f"Cannot delete non-existent intention: '{intention_id}'")
    row, _ = found
    _require_legacy(row)
    require(request.authorizer.intention_write(row.value["Name"]))
    rest = [each for each in row.value["Sources"] if each["LegacyID"] != intention_id]
    _replace_sources(dc, row, rest, legacy=True)
    return Reply(value=True)


def _replace_sources(dc: Datacenter, row: Row, sources: list[Document], *, legacy: bool) -> None:
    """Replace an entry's sources; without sources the entry is removed."""
    if sources:
        entry = normalised({**row.value, "Sources": sources}, legacy=legacy)
        write_entry(dc.store, entry, legacy=legacy)
    else:
        delete_entry(dc.store, KIND, row.value["Name"])


def _with(sources: list[Document], source: Document, *, key: str) -> list[Document]:
    """Return the sources with this one in place of the one with the same `key`, else at the end."""
    if any(each.get(key) == source[key] for each in sources):
        return [source if each.get(key) == source[key] else each for each in sources]
    return [*sources, source]


def _source(body: Document, name: str) -> Document:
    names = {
        "Action": "Action",
        "Permissions": "Permissions",
        "Description": "Description",
        "SourceType": "Type",
    }
    return {"Name": name} | {ours: body[theirs] for theirs, ours in names.items() if theirs in body}


def _check_legacy(body: Document) -> None:
    mistakes = [f"{key} must be set" for key in ("SourceName", "DestinationName") if not body.get(key)]
    if body.get("Action", "") not in {"allow", "deny"}:
        mistakes.append("Action must be set to 'allow' or 'deny'")
    if mistakes:
        count = "1 error" if len(mistakes) == 1 else f"{len(mistakes)} errors"
        listed = "".join(f"\t* {mistake}\n" for mistake in mistakes)
        raise ApiError(500, f"{count} occurred:\n{listed}\n")


def _require_legacy(row: Row) -> None:
    if not all("LegacyID" in source for source in row.value["Sources"]):
        raise ApiError(
            500,
            "cannot use legacy intention API to edit intentions with a destination of "
            f'"{row.value["Name"]}" after editing them via a service-intentions config entry',
        )


def _found(dc: Datacenter, intention_id: str) -> tuple[Row, Document] | None:
    if not is_uuid(intention_id):
        raise ApiError(500, f"Intention lookup failed: {_NO_UUID}")
    return find_by_id(dc.store, intention_id)


def _shown(request: Request, row: Row, source: Document) -> Reply:
    intention = intention_of(row, source)
    require(_may_read(request, intention))
    return Reply(value=intention)


def _may_read(request: Request, intention: Document) -> bool:
    """Return whether the token may read an intention: rights on either end are enough."""
    ends = (intention["SourceName"], intention["DestinationName"])
    return any(request.authorizer.intention_read(end) for end in ends)


def _ends(request: Request, of_source: str = "", of_destination: str = "") -> tuple[str, str]:
    """Return source and destination; their namespaces are ignored without a name, as in writes."""
    return (
        _name(_required(request, "source"), "source", of_source),
        _name(_required(request, "destination"), "destination", of_destination),
    )


def _required(request: Request, name: str) -> str:
    value = request.query.get(name, "")
    if not value:
        raise ApiError(500, f"required query parameter '{name}' not set")
    return value


def _name(text: str, where: str, what: str, headers: Mapping[str, str] | None = None) -> str:
    """Return the name of `web` or `default/web`; other namespaces belong to Enterprise."""
    namespace, _, name = text.rpartition("/")
    if "/" in namespace:
        raise ApiError(500, f"{where} \"{text}\" is invalid: input can contain at most one '/'")
    if what and namespace not in {"", NAMESPACE}:
        detail = f'Invalid {what} "{namespace}": Namespaces is a Consul Enterprise feature'
        raise ApiError(500, detail, headers)
    return name


def _time(at: datetime) -> str:
    """Return RFC 3339 as Go prints it, without trailing zeros."""
    text = at.strftime("%Y-%m-%dT%H:%M:%S.%f").rstrip("0").rstrip(".")
    return f"{text}Z"
