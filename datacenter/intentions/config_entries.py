"""Checks and writes the config entries of the three kinds that a mesh needs.

See docs/consul-api.md#intentions and #registration.

`datacenter.intentions.entry` decides about `service-intentions`. `service-defaults` and `proxy-defaults` keep
what sidecars read of them. One rule concerns all three: intentions with HTTP permissions need a destination
whose protocol is HTTP-like, whichever entry changes last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datacenter.http.decode import ANYTHING, Fields, Malformed, Mapped, first_value
from datacenter.http.weak_decode import WeaklyMalformed, decode_weakly, go_kind
from datacenter.intentions import entry as service_intentions
from datacenter.intentions import upstream_defaults
from datacenter.intentions.entry import EntryRefused, without_empty
from datacenter.services.central_defaults import CONFIG_ENTRIES, entry_key
from datacenter.services.definitions import EXPOSE, MESH_GATEWAY, TRANSPARENT_PROXY
from datacenter.state.errors import ApiError, bad_request
from datacenter.state.store import Document, Store
from datacenter.state.validation import multierror

SERVICE_DEFAULTS = "service-defaults"
PROXY_DEFAULTS = "proxy-defaults"
GLOBAL = "global"  # the only name of proxy-defaults; 1.10 silently renames any other

_HTTP_LIKE = ("http", "http2", "grpc")

_COMMON: dict[str, Any] = {
    "Kind": str,
    "Name": str,
    "Mode": str,
    "TransparentProxy": TRANSPARENT_PROXY,
    "MeshGateway": MESH_GATEWAY,
    "Expose": EXPOSE,
    "Meta": Mapped(str),
    "CreateIndex": ANYTHING,  # a client may send back what it has read
    "ModifyIndex": ANYTHING,
}
_SHAPES = {
    service_intentions.KIND: service_intentions.SHAPE,
    SERVICE_DEFAULTS: Fields(
        "ServiceConfigEntry",
        {**_COMMON, "Protocol": str, "ExternalSNI": str, "UpstreamConfig": upstream_defaults.SHAPE},
    ),
    PROXY_DEFAULTS: Fields("ProxyConfigEntry", {**_COMMON, "Config": Mapped(ANYTHING)}),
}


def require_kind(kind: str, status: int = 500) -> None:
    """Raise ApiError for a kind that is not served."""
    if kind not in _SHAPES:
        raise ApiError(status, f"invalid config entry kind: {kind}")


def read_entry(body: bytes) -> Document:
    """Return the entry in a request's body, in its normal form. Raises ApiError 400."""
    try:
        value = first_value(body)
        kind = _kind(value)
        entry = decode_weakly(value, _SHAPES[kind])
    except (Malformed, WeaklyMalformed) as error:
        raise bad_request(f"Request decoding failed: {error}") from error
    if kind == service_intentions.KIND:
        return service_intentions.normalised(entry)
    return _defaults(kind, entry)


def write_entry(store: Store, entry: Document, *, legacy: bool = False) -> None:
    """Check and store a normalised entry. Raises ApiError 500 and then changes nothing."""
    try:
        if entry["Kind"] == service_intentions.KIND:
            service_intentions.validate(entry, legacy=legacy)
        else:
            _validate_defaults(entry)
        with store.transaction():
            store.table(CONFIG_ENTRIES).put(entry_key(entry["Kind"], entry["Name"]), entry)
            _check_protocols(store)
    except EntryRefused as error:
        raise ApiError(500, str(error)) from error


def delete_entry(store: Store, kind: str, name: str) -> None:
    """Remove an entry if it exists. Raises ApiError 500 if intentions still need it."""
    try:
        with store.transaction():
            store.table(CONFIG_ENTRIES).delete(entry_key(kind, name))
            _check_protocols(store)
    except EntryRefused as error:
        raise ApiError(500, str(error)) from error


def refile(store: Store) -> None:
    """Move entries of an older data directory to the keys of their names; two entries are merged."""
    table = store.table(CONFIG_ENTRIES)
    with store.transaction():
        for row in table.rows():
            key = entry_key(row.value["Kind"], row.value["Name"])
            if key != row.key:
                filed = table.get(key)
                table.delete(row.key)
                table.put(key, _together(filed.value, row.value) if filed else row.value)


def _together(one: Document, other: Document) -> Document:
    """Merge two entries of one name; of their rules about one source the denial stays."""
    if one["Kind"] != service_intentions.KIND:
        return one
    rules = sorted((*one["Sources"], *other["Sources"]), key=lambda each: each.get("Action") == "deny")
    by_source = {each["Name"]: each for each in rules}.values()
    return {**one, "Sources": sorted(by_source, key=lambda each: -each["Precedence"])}


def _kind(value: object) -> str:
    """Return the kind, in any spelling of its key, since it decides the shape. Raises WeaklyMalformed."""
    if value is not None and not isinstance(value, Mapping):
        raise WeaklyMalformed(f"'' expected a map, got '{go_kind(value)}'")
    kinds = [item for key, item in (value or {}).items() if key.lower() == "kind"]
    if not kinds:
        raise WeaklyMalformed("Payload does not contain a kind/Kind key at the top level")
    if not isinstance(kinds[0], str):
        raise WeaklyMalformed("Kind value in payload is not a string")
    if kinds[0] not in _SHAPES:
        raise WeaklyMalformed(f"invalid config entry kind: {kinds[0]}")
    return kinds[0]


def _defaults(kind: str, entry: Document) -> Document:
    """Return service-defaults or proxy-defaults as they are shown, with three parts always present."""
    name = GLOBAL if kind == PROXY_DEFAULTS else entry.get("Name", "")
    # service-defaults always show a protocol, even if none was given.
    first = {"Protocol": entry.get("Protocol", "").lower()} if kind == SERVICE_DEFAULTS else {}
    return {
        "Kind": kind,
        "Name": name,
        **first,
        **without_empty({key: entry.get(key) for key in ("Config", "Mode")}),
        "TransparentProxy": without_empty(entry.get("TransparentProxy", {})),
        "MeshGateway": without_empty(entry.get("MeshGateway", {})),
        "Expose": _expose(entry.get("Expose", {})),
        **without_empty({"ExternalSNI": entry.get("ExternalSNI")}),
        **upstream_defaults.normalised(entry),
        **without_empty({"Meta": entry.get("Meta")}),
    }


def _expose(given: Document) -> Document:
    return without_empty({**given, "Paths": [without_empty(path) for path in given.get("Paths", [])]})


def _validate_defaults(entry: Document) -> None:
    if not entry["Name"]:
        raise EntryRefused("Name is required")
    if entry["Kind"] == SERVICE_DEFAULTS and entry["Name"] == service_intentions.WILDCARD:
        raise EntryRefused("service-defaults name must be the name of a service, and not a wildcard")
    if mistakes := upstream_defaults.mistakes(entry):
        raise EntryRefused(multierror(mistakes))


def _check_protocols(store: Store) -> None:
    """Raise ApiError if a destination of HTTP permissions does not speak HTTP, by the present entries."""
    for row in store.table(CONFIG_ENTRIES).rows():
        entry = row.value
        if entry["Kind"] != service_intentions.KIND or not service_intentions.has_permissions(entry):
            continue
        protocol = _protocol(store, entry["Name"])
        if protocol not in _HTTP_LIKE:
            text = "which is incompatible with L7 intentions permissions"
            raise EntryRefused(f'service "{entry["Name"]}" has protocol "{protocol}", {text}')


def _protocol(store: Store, service: str) -> str:
    table = store.table(CONFIG_ENTRIES)
    own, shared = table.get(f"{SERVICE_DEFAULTS}/{service}"), table.get(f"{PROXY_DEFAULTS}/{GLOBAL}")
    if own is not None and own.value.get("Protocol"):
        return str(own.value["Protocol"])
    if shared is not None and shared.value.get("Config", {}).get("protocol"):
        return str(shared.value["Config"]["protocol"]).lower()
    return "tcp"
