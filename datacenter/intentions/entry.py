"""The `service-intentions` config entry: its shape, its normal form, its validation. No effects.

Intentions live here only; the intention endpoints are views of the entry and edit it. Sources are kept in
descending precedence. The texts are those of Consul 1.10.12. See docs/consul-api.md#intentions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from datacenter.http.decode import Fields, Mapped
from datacenter.state.store import Document

KIND = "service-intentions"
WILDCARD = "*"
LONGEST_TEXT = 512  # bytes of a description or a value of Meta

_ACTIONS = ("allow", "deny")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE")
_HEADER_MATCHES = ("Present", "Exact", "Prefix", "Suffix", "Regex")
_LEGACY = ("LegacyID", "LegacyCreateTime", "LegacyUpdateTime")

_HEADER = Fields(
    "IntentionHTTPHeaderPermission",
    {
        "Name": str,
        "Present": bool,
        "Exact": str,
        "Prefix": str,
        "Suffix": str,
        "Regex": str,
        "Invert": bool,
    },
)
_HTTP = Fields(
    "IntentionHTTPPermission",
    {"PathExact": str, "PathPrefix": str, "PathRegex": str, "Header": [_HEADER], "Methods": [str]},
)
PERMISSION = Fields("IntentionPermission", {"Action": str, "HTTP": _HTTP})
_SOURCE = Fields(
    "SourceIntention",
    {
        "Name": str,
        "Action": str,
        "Permissions": [PERMISSION],
        "Precedence": int,
        "LegacyID": str,
        "Type": str,
        "Description": str,
        "LegacyMeta": Mapped(str),
        "LegacyCreateTime": str,
        "LegacyUpdateTime": str,
    },
)
SHAPE = Fields(
    "ServiceIntentionsConfigEntry",
    {
        "Kind": str,
        "Name": str,
        "Sources": [_SOURCE],
        "Meta": Mapped(str),
        "CreateIndex": int,
        "ModifyIndex": int,
    },
)


class EntryRefused(Exception):
    """Consul answers this entry with 500; the text is the answer's."""


def precedence(source: str, destination: str) -> int:
    """Return 9 for exact to exact, 8 for any to exact, 6 for exact to any, 5 for any to any."""
    return (6 if destination == WILDCARD else 9) - (source == WILDCARD)


def normalised(entry: Document, *, legacy: bool = False) -> Document:
    """Return a decoded entry in its stored form. `legacy`: written through the old endpoints."""
    name = entry.get("Name", "")
    sources = [_source(source, name, legacy=legacy) for source in entry.get("Sources", [])]
    sources.sort(key=lambda source: -int(source["Precedence"]))  # stable: the client's order among equals
    result: Document = {"Kind": KIND, "Name": name, "Sources": sources}
    if entry.get("Meta"):
        result["Meta"] = entry["Meta"]
    return result


def validate(entry: Document, *, legacy: bool = False) -> None:
    """Check a normalised entry. Raises EntryRefused."""
    name, sources = entry["Name"], entry["Sources"]
    if not name:
        raise EntryRefused("Name is required")
    _check_wildcard(name, "")
    if legacy and entry.get("Meta"):
        raise EntryRefused("Meta must be omitted for legacy intention writes")
    if not sources:
        raise EntryRefused("At least one source is required")
    seen: set[str] = set()
    for position, source in enumerate(sources):
        _check_source(source, f"Sources[{position}]", destination=name, legacy=legacy)
        if source["Name"] in seen:
            raise EntryRefused(f'Sources[{position}] defines "{source["Name"]}" more than once')
        seen.add(source["Name"])


def has_permissions(entry: Mapping[str, Any]) -> bool:
    """Return whether any source is decided by HTTP attributes."""
    return any(source.get("Permissions") for source in entry["Sources"])


def without_empty(document: Mapping[str, Any]) -> Document:
    """Return the document without what Go's `omitempty` leaves out."""
    return {key: value for key, value in document.items() if value not in ("", None, False, [], {})}


def _source(source: Document, destination: str, *, legacy: bool) -> Document:
    name = source.get("Name", "")
    kept = source if legacy else {key: value for key, value in source.items() if key not in _LEGACY}
    # LegacyMeta is kept, so that validation refuses its loss.
    optional = without_empty(
        {key: kept.get(key) for key in ("LegacyID", "Description", "LegacyMeta", *_LEGACY)}
    )
    decided: Document = without_empty(
        {
            "Action": source.get("Action"),
            "Permissions": [_permission(permission) for permission in source.get("Permissions", [])],
        }
    )
    return {
        "Name": name,
        **decided,
        "Precedence": precedence(name, destination),
        "Type": source.get("Type") or "consul",
        **optional,
    }


def _permission(permission: Document) -> Document:
    result: Document = {"Action": permission.get("Action", "")}
    if (http := permission.get("HTTP")) is not None:
        methods = [method.upper() for method in http.get("Methods", [])]
        headers = [
            {"Name": header.get("Name", ""), **without_empty({**header, "Name": ""})}
            for header in http.get("Header", [])
        ]
        result["HTTP"] = without_empty({**http, "Header": headers, "Methods": methods})
    return result


def _check_source(source: Document, where: str, *, destination: str, legacy: bool) -> None:
    if not source["Name"]:
        raise EntryRefused(f"{where}.Name is required")
    _check_wildcard(source["Name"], f"{where}.")
    if len(source.get("Description", "").encode()) > LONGEST_TEXT:
        raise EntryRefused(f"{where}.Description exceeds maximum length {LONGEST_TEXT}")
    if not legacy and source.get("LegacyMeta"):
        raise EntryRefused(f"{where}.LegacyMeta must be omitted")
    permissions = source.get("Permissions", [])
    if (legacy or not permissions) and source.get("Action", "") not in _ACTIONS:
        raise EntryRefused(f"{where}.Action must be set to 'allow' or 'deny'")
    if permissions and source.get("Action"):
        raise EntryRefused(f"{where}.Action must be omitted if Permissions are specified")
    if permissions and destination == WILDCARD:
        text = "cannot be specified on intentions with wildcarded destinations"
        raise EntryRefused(f"{where}.Permissions {text}")
    if source["Type"] != "consul":
        raise EntryRefused(f"{where}.Type must be set to 'consul'")
    for position, permission in enumerate(permissions):
        _check_permission(permission, f"{where}.Permissions[{position}]")


def _check_wildcard(name: str, where: str) -> None:
    if WILDCARD in name and name != WILDCARD:
        raise EntryRefused(f"{where}Name: wildcard character '*' cannot be used with partial values")


def _check_permission(permission: Document, where: str) -> None:
    if permission["Action"] not in _ACTIONS:
        raise EntryRefused(f"{where}.Action must be set to 'allow' or 'deny'")
    http = permission.get("HTTP")
    if http is None:
        raise EntryRefused(f"{where}.HTTP is required")
    for key in ("PathExact", "PathPrefix"):
        if not http.get(key, "/").startswith("/"):
            raise EntryRefused(f"{where}.HTTP.{key} doesn't start with '/': \"{http[key]}\"")
    if sum(key in http for key in ("PathExact", "PathPrefix", "PathRegex")) > 1:
        text = "should only contain at most one of PathExact, PathPrefix, or PathRegex"
        raise EntryRefused(f"{where}.HTTP {text}")
    for mistake in (*_header_mistakes(http), *_method_mistakes(http)):
        raise EntryRefused(f"{where}.HTTP.{mistake}")
    if not http:
        raise EntryRefused(f"{where}.HTTP should not be empty")


def _header_mistakes(http: Document) -> Iterator[str]:
    for position, header in enumerate(http.get("Header", [])):
        if not header["Name"]:
            yield f"Header[{position}] missing required Name field"
        if sum(key in header for key in _HEADER_MATCHES) != 1:
            text = "should only contain one of Present, Exact, Prefix, Suffix, or Regex"
            yield f"Header[{position}] {text}"


def _method_mistakes(http: Document) -> Iterator[str]:
    methods = http.get("Methods", [])
    for position, method in enumerate(methods):
        if method not in _METHODS:
            yield f'Methods contains an invalid method "{method}"'
        if method in methods[:position]:
            yield f'Methods contains "{method}" more than once'
