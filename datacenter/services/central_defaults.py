"""Merges the central configuration, proxy-defaults and service-defaults, into a registration.

See docs/consul-api.md#registration.

Local keys win over central ones, key by key at the first level. No effects, apart from reading the store.
"""

from __future__ import annotations

import hashlib
import json

from datacenter.state.store import Document, Store
from datacenter.state.validation import PROXY_KIND

CONFIG_ENTRIES = "config_entries"  # table: entry_key -> entry


def entry_key(kind: str, name: str) -> str:
    """Return the key of an entry, the same for every case of its name (docs/consul-api.md#intentions)."""
    return f"{kind}/{name.lower()}"


def merged(store: Store, service: Document) -> Document:
    """Return a stored service as its proxy sees it."""
    if service["Kind"] != PROXY_KIND:
        return service
    proxy_defaults = _entry(store, "proxy-defaults", "global")
    own = _entry(store, "service-defaults", service["Proxy"].get("DestinationServiceName", ""))
    proxy = {**service["Proxy"]}
    proxy["Upstreams"] = [
        _merged_upstream(store, upstream, proxy, own, proxy_defaults) for upstream in proxy["Upstreams"]
    ]
    config = {**_part(proxy_defaults, "Config"), **_protocol(own), **_part(proxy, "Config")}
    expose = _part(proxy, "Expose") or _part(own, "Expose") or _part(proxy_defaults, "Expose")
    proxy |= {"Config": config, "MeshGateway": {"Mode": _mode(proxy, own, proxy_defaults)}, "Expose": expose}
    return {**service, "Proxy": proxy}


def content_hash(view: Document) -> str:
    """Return the hash by which /v1/agent/service/:id blocks, over the whole answer."""
    text = json.dumps(view, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _merged_upstream(
    store: Store, upstream: Document, proxy: Document, own: Document, proxy_defaults: Document
) -> Document:
    """Merge central settings into a service upstream; a query has none, since it names no destination."""
    if upstream["DestinationType"] != "service":
        return upstream
    name = upstream["DestinationName"]
    settings = _part(own, "UpstreamConfig")
    defaults = _part(settings, "Defaults")
    overrides = [each for each in settings.get("Overrides") or [] if each.get("Name") == name]
    central = _protocol({"Protocol": _part(proxy_defaults, "Config").get("protocol", "")})
    central |= _protocol(_entry(store, "service-defaults", name))
    for layer in (defaults, *overrides):
        central |= _upstream_settings(layer)
    return {
        **upstream,
        "Config": {**central, **_part(upstream, "Config")},
        "MeshGateway": {"Mode": _mode(upstream, proxy, *overrides, defaults, own, proxy_defaults)},
    }


def _upstream_settings(layer: Document) -> Document:
    """Return the opaque keys that an upstream's central settings become."""
    names = {
        "EnvoyListenerJSON": "envoy_listener_json",
        "EnvoyClusterJSON": "envoy_cluster_json",
        "ConnectTimeoutMs": "connect_timeout_ms",
        "Limits": "limits",
        "PassiveHealthCheck": "passive_health_check",
    }
    return _protocol(layer) | {opaque: layer[name] for name, opaque in names.items() if layer.get(name)}


def _protocol(entry: Document) -> Document:
    return {"protocol": entry["Protocol"]} if entry.get("Protocol") else {}


def _mode(*holders: Document) -> str:
    """Return the first mesh gateway mode that is set, nearest first."""
    modes = (str(_part(holder, "MeshGateway").get("Mode", "")) for holder in holders)
    return next((mode for mode in modes if mode), "")


def _part(holder: Document, key: str) -> Document:
    part = holder.get(key)
    return part if isinstance(part, dict) else {}  # a data directory may have what is refused today


def _entry(store: Store, kind: str, name: str) -> Document:
    row = store.table(CONFIG_ENTRIES).get(entry_key(kind, name))
    return row.value if row else {}
