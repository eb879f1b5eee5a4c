"""The part of service-defaults that is about a service's upstreams: shape, mistakes, normal form. No effects.

See docs/consul-api.md#config-entries.
"""

from __future__ import annotations

from collections.abc import Iterator

from datacenter.http.decode import DURATION, Fields
from datacenter.intentions.entry import WILDCARD, without_empty
from datacenter.services.definitions import MESH_GATEWAY
from datacenter.state.store import Document
from datacenter.state.validation import multierror

KEY = "UpstreamConfig"

_UPSTREAM = Fields(
    "UpstreamConfig",
    {
        "Name": str,
        "EnvoyListenerJSON": str,
        "EnvoyClusterJSON": str,
        "Protocol": str,
        "ConnectTimeoutMs": int,
        "Limits": Fields(
            "UpstreamLimits",
            {"MaxConnections": int, "MaxPendingRequests": int, "MaxConcurrentRequests": int},
        ),
        "PassiveHealthCheck": Fields("PassiveHealthCheck", {"Interval": DURATION, "MaxFailures": int}),
        "MeshGateway": MESH_GATEWAY,
    },
)
SHAPE = Fields("UpstreamConfiguration", {"Overrides": [_UPSTREAM], "Defaults": _UPSTREAM})

_LIMITS = {
    "MaxConnections": "max connections",
    "MaxPendingRequests": "max pending requests",
    "MaxConcurrentRequests": "max concurrent requests",
}


def normalised(entry: Document) -> Document:
    """Return what a decoded entry says of upstreams in its stored form, under its key; empty without."""
    if KEY not in entry:
        return {}
    given: Document = entry[KEY]
    shown: Document = {}
    if given.get("Overrides"):
        shown["Overrides"] = [_normal(override) for override in given["Overrides"]]
    if "Defaults" in given:
        shown["Defaults"] = _normal(given["Defaults"])
    return {KEY: shown}


def mistakes(entry: Document) -> list[str]:
    """Return what Consul finds wrong in an entry in its normal form."""
    given = entry.get(KEY, {})
    found = [
        f"error in upstream override for {override.get('Name', '')}: {why}"
        for override in given.get("Overrides", [])
        if (why := _mistake(override, name_is_needed=True))
    ]
    if why := _mistake(given.get("Defaults", {}), name_is_needed=False):
        found.append(f"error in upstream defaults: {why}")
    return found


def _normal(settings: Document) -> Document:
    """Return settings without what is empty; a time-out below 1 is Consul's default, and so is none."""
    shown = without_empty({**settings, "Protocol": settings.get("Protocol", "").lower()})
    if settings.get("ConnectTimeoutMs", 0) < 1:
        shown.pop("ConnectTimeoutMs", None)
    for part in ("Limits", "PassiveHealthCheck"):
        if part in settings:
            shown[part] = {key: value for key, value in settings[part].items() if value}
    return {**shown, "MeshGateway": without_empty(settings.get("MeshGateway", {}))}


def _mistake(settings: Document, *, name_is_needed: bool) -> str:
    name = settings.get("Name", "")
    if name_is_needed and not name:
        return "Name is required"
    if name == WILDCARD and name_is_needed:
        return "Wildcard name is not supported"
    if name and not name_is_needed:
        return "Name must be empty"
    negative = list(_negative(settings))
    return multierror(negative) if negative else ""


def _negative(settings: Document) -> Iterator[str]:
    if settings.get("PassiveHealthCheck", {}).get("Interval", 0) < 0:
        yield "passive health check interval cannot be negative"
    for key, words in _LIMITS.items():
        if settings.get("Limits", {}).get(key, 0) < 0:
            yield f"{words} cannot be negative"
