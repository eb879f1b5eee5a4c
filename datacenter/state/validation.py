"""What Consul finds wrong with a registration, in Consul's words: docs/consul-api.md#agent-services.

No effects.

A function's name ends in `mistake` if it returns the first mistake, in `mistakes` if it returns all.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from datacenter.state.store import Document

PROXY_KIND = "connect-proxy"
_LARGEST_WEIGHT = 65535  # the largest weight in DNS
_STATUSES = ("passing", "warning", "critical")

_META_KEY = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST_META_KEY, _LONGEST_META_VALUE = 128, 512


def multierror(mistakes: Collection[str]) -> str:
    """Return several mistakes as one text, in the form of go-multierror."""
    count = "1 error" if len(mistakes) == 1 else f"{len(mistakes)} errors"
    lines = "\n".join(f"\t* {mistake}" for mistake in mistakes)
    return f"{count} occurred:\n{lines}\n\n"


def service_mistakes(service: Document) -> list[str]:
    """Return what Consul's NodeService.Validate finds."""
    if service["Kind"] != PROXY_KIND:
        return []
    proxy, mistakes = service["Proxy"], []
    name = proxy.get("DestinationServiceName", "").strip()
    if not name:
        mistakes.append("Proxy.DestinationServiceName must be non-empty for Connect proxy services")
    if name == "*":
        mistakes.append("Proxy.DestinationServiceName must not be a wildcard for Connect proxy services")
    if not service["Port"] and not service["SocketPath"]:
        mistakes.append("Port or SocketPath must be set for a Connect proxy")
    if service["Native"]:
        mistakes.append("A Proxy cannot also be Connect Native, only typical services")
    return [*mistakes, *_upstream_mistakes(proxy["Upstreams"])]


def _upstream_mistakes(upstreams: list[Document]) -> Iterator[str]:
    binds: set[str] = set()
    for upstream in upstreams:
        mistake = _upstream_mistake(upstream)
        if mistake:
            yield mistake
            continue
        address = upstream.get("LocalBindAddress") or "127.0.0.1"
        bind = upstream.get("LocalBindSocketPath") or f"{address}:{upstream.get('LocalBindPort')}"
        if bind in binds:
            yield (
                "upstreams cannot contain duplicates by local bind address and port or unix path; "
                f'"{bind}" is specified twice'
            )
        binds.add(bind)


def _upstream_mistake(upstream: Document) -> str:
    if upstream["DestinationType"] not in {"service", "prepared_query"}:
        return f'unknown upstream destination type: "{upstream["DestinationType"]}"'
    if not upstream.get("DestinationName"):
        return "upstream destination name cannot be empty"
    if upstream["DestinationName"] == "*" and not upstream.get("CentrallyConfigured"):
        return "upstream destination name cannot be a wildcard"
    port, path = upstream.get("LocalBindPort", 0), upstream.get("LocalBindSocketPath", "")
    if not port and not path and not upstream.get("CentrallyConfigured"):
        return "upstream local bind port or local socket path must be defined and nonzero"
    if port and path:
        return "only one of upstream local bind port or local socket path can be defined and nonzero"
    return ""


def sidecar_mistakes(inner: Document | None) -> list[str]:
    """Return the mistakes in a service's definition of its sidecar."""
    if inner is None:
        return []
    mistakes = []
    if inner.get("ID"):
        mistakes.append("A SidecarService cannot specify an ID as this is managed by the agent")
    if inner.get("Connect", {}).get("SidecarService") is not None:
        mistakes.append("A SidecarService cannot have a nested SidecarService")
    return mistakes


def weights_mistake(weights: Document | None) -> str:
    """Return the mistake in given weights; a zero stands for an absent one."""
    if weights is None:
        return ""
    passing, warning = weights.get("Passing", 0), weights.get("Warning", 0)
    if passing < 1:
        return "Passing must be greater than 0"
    if warning < 0:
        return "Warning must be greater or equal than 0"
    if max(passing, warning) > _LARGEST_WEIGHT:
        return f"DNS Weight must be between 0 and {_LARGEST_WEIGHT}"
    return ""


def meta_mistake(meta: Mapping[str, str]) -> str:
    """Return the mistake in a service's metadata."""
    for key, value in meta.items():
        if mistake := _meta_pair_mistake(key, value):
            return f"Couldn't load metadata pair ('{key}', '{value}'): {mistake}"
    return ""


def _meta_pair_mistake(key: str, value: str) -> str:
    if not key:
        return "Key cannot be blank"
    if not _META_KEY.fullmatch(key):
        return "Key contains invalid characters"
    if len(key) > _LONGEST_META_KEY:
        return f"Key is too long (limit: {_LONGEST_META_KEY} characters)"
    if key.startswith("consul-"):
        return "Key prefix 'consul-' is reserved for internal use"
    if len(value) > _LONGEST_META_VALUE:
        return f"Value is too long (limit: {_LONGEST_META_VALUE} characters)"
    return ""


def check_kind(check: Document) -> str:
    """Return `ttl`, `tcp`, `http` or `alias`; "" for kinds that only a real Consul agent runs."""
    if check.get("AliasService") or check.get("AliasNode"):
        return "alias"
    kinds = {"TCP": "tcp", "HTTP": "http"}
    for key, kind in kinds.items():
        if check.get(key):
            return kind
    return "" if any(check.get(key) for key in ("ScriptArgs", "GRPC", "H2PING")) else "ttl"


def check_mistake(check: Document) -> str:
    """Return what Consul's CheckType.Validate finds first."""
    kind, interval, ttl = check_kind(check), check.get("Interval", 0), check.get("TTL", 0)
    if not kind:
        return "the embedded datacenter runs TTL, TCP, HTTP and alias checks only"
    if interval > 0 and ttl > 0:
        return "Interval and TTL cannot both be specified"
    if kind in {"tcp", "http"} and interval <= 0:
        return "Interval must be > 0 for Script, HTTP, H2PING, or TCP checks"
    if kind == "alias" and ttl > 0:
        return "TTL must be not be set for Alias checks"
    if kind == "ttl" and ttl <= 0:
        return "TTL must be > 0 for TTL checks"
    return ""


def status_mistake(status: str) -> str:
    """Return the mistake in the initial status of a check."""
    if status in {"", *_STATUSES}:
        return ""
    return "Status for checks must 'passing', 'warning', 'critical'"  # the wording is Consul's own
