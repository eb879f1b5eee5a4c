"""Parses SPIFFE IDs of Consul's forms strictly, and prints them canonically.

See docs/consul-api.md#identity for the forms.

A trust domain is compared in lower case. The names in the path (service, datacenter, namespace, node) are
compared exactly, as Consul's intentions compare their source: `WEB` is not `web`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias
from urllib.parse import quote, unquote_to_bytes

MAX_URI_BYTES = 2048  # SPIFFE ID specification, section 2.3
DEFAULT = "default"  # the only namespace and partition of Consul without Enterprise

_SCHEME = "spiffe"
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_SEGMENT = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+")  # RFC 3986 segment-nz
_KEPT = "$&+,:;=@"  # what Go's net/url leaves unescaped in a path segment, beside the unreserved characters


class InvalidSpiffeId(ValueError):
    """The text is no SPIFFE ID. `rule`: a short code of the rule it breaks.

    `value`: the text that breaks it.
    """

    def __init__(self, rule: str, value: str) -> None:
        super().__init__(f"not a SPIFFE ID ({rule}): {value[:200]!r}")
        self.rule = rule
        self.value = value


@dataclass(frozen=True, slots=True, order=True)
class TrustDomain:
    """`<cluster uuid>.consul`, always in lower case."""

    name: str

    def __post_init__(self) -> None:
        if not _TRUST_DOMAIN.fullmatch(self.name):
            raise InvalidSpiffeId("trust_domain", self.name)

    def __str__(self) -> str:
        return self.name

    @classmethod
    def parse(cls, text: str) -> TrustDomain:
        """Parse a trust domain in any case. Raises InvalidSpiffeId for all but a host name without a port."""
        if not text.isascii():
            raise InvalidSpiffeId("trust_domain", text)
        return cls(text.lower())


@dataclass(frozen=True, slots=True, order=True, kw_only=True)
class ServiceId:
    """`spiffe://<td>[/ap/<partition>]/ns/<ns>/dc/<dc>/svc/<service>`: the identity of a workload."""

    trust_domain: TrustDomain
    datacenter: str
    service: str
    namespace: str = DEFAULT
    partition: str = DEFAULT

    def __post_init__(self) -> None:
        _require_names(self.datacenter, self.service, self.namespace, self.partition)

    def __str__(self) -> str:
        names = ("ns", self.namespace, "dc", self.datacenter, "svc", self.service)
        return _print(self.trust_domain, self.partition, names)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentId:
    """`spiffe://<td>[/ap/..]/agent/client/dc/<dc>/id/<node>`: a Consul client agent."""

    trust_domain: TrustDomain
    datacenter: str
    node: str
    partition: str = DEFAULT

    def __post_init__(self) -> None:
        _require_names(self.datacenter, self.node, self.partition)

    def __str__(self) -> str:
        names = ("agent", "client", "dc", self.datacenter, "id", self.node)
        return _print(self.trust_domain, self.partition, names)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerId:
    """`spiffe://<td>/agent/server/dc/<dc>`: the Consul servers of a datacenter (1.14 and later)."""

    trust_domain: TrustDomain
    datacenter: str

    def __post_init__(self) -> None:
        _require_names(self.datacenter)

    def __str__(self) -> str:
        return _print(self.trust_domain, DEFAULT, ("agent", "server", "dc", self.datacenter))


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayId:
    """`spiffe://<td>[/ap/..]/gateway/mesh/dc/<dc>`: a mesh gateway (1.13 and later)."""

    trust_domain: TrustDomain
    datacenter: str
    partition: str = DEFAULT

    def __post_init__(self) -> None:
        _require_names(self.datacenter, self.partition)

    def __str__(self) -> str:
        return _print(self.trust_domain, self.partition, ("gateway", "mesh", "dc", self.datacenter))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadId:
    """`spiffe://<td>/ap/<p>/ns/<ns>/identity/<name>`: parsed since 1.17, unused by sidecars."""

    trust_domain: TrustDomain
    identity: str
    namespace: str = DEFAULT
    partition: str = DEFAULT

    def __post_init__(self) -> None:
        _require_names(self.identity, self.namespace, self.partition)

    def __str__(self) -> str:
        names = ("ap", self.partition, "ns", self.namespace, "identity", self.identity)
        return _print(self.trust_domain, DEFAULT, names)


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningId:
    """`spiffe://<td>`, no path: roots and intermediates."""

    trust_domain: TrustDomain

    def __str__(self) -> str:
        return f"{_SCHEME}://{self.trust_domain}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherId:
    """A well-formed SPIFFE ID of a form that Consul does not use; kept as it was written."""

    trust_domain: TrustDomain
    uri: str

    def __str__(self) -> str:
        return self.uri


SpiffeId: TypeAlias = ServiceId | AgentId | ServerId | GatewayId | WorkloadId | SigningId | OtherId


def parse(uri: str) -> SpiffeId:
    """Parse a URI: ASCII, at most 2048 bytes, no user, port, query or fragment. Raises InvalidSpiffeId."""
    if not uri.isascii():
        raise InvalidSpiffeId("ascii", uri)
    if len(uri) > MAX_URI_BYTES:
        raise InvalidSpiffeId("length", uri)
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme.lower() != _SCHEME:
        raise InvalidSpiffeId("scheme", uri)
    authority, slash, path = rest.partition("/")
    trust_domain = TrustDomain.parse(authority)
    if not slash:
        return SigningId(trust_domain=trust_domain)
    return _of_path(trust_domain, tuple(map(_decode, path.split("/"))), uri)


def _of_path(trust_domain: TrustDomain, path: tuple[str, ...], uri: str) -> SpiffeId:
    partition = DEFAULT
    inner = path
    if path[0] == "ap" and len(path) > 2:
        partition, inner = path[1], path[2:]
    match inner:
        case ("ns", namespace, "dc", datacenter, "svc", service):
            return ServiceId(
                trust_domain=trust_domain,
                datacenter=datacenter,
                service=service,
                namespace=namespace,
                partition=partition,
            )
        case ("agent", "client", "dc", datacenter, "id", node):
            return AgentId(trust_domain=trust_domain, datacenter=datacenter, node=node, partition=partition)
        case ("agent", "server", "dc", datacenter) if inner is path:
            return ServerId(trust_domain=trust_domain, datacenter=datacenter)
        case ("gateway", "mesh", "dc", datacenter):
            return GatewayId(trust_domain=trust_domain, datacenter=datacenter, partition=partition)
        case ("ns", namespace, "identity", name) if inner is not path:
            return WorkloadId(
                trust_domain=trust_domain, identity=name, namespace=namespace, partition=partition
            )
        case _:
            return OtherId(trust_domain=trust_domain, uri=uri)


def _decode(segment: str) -> str:
    if not _SEGMENT.fullmatch(segment):
        raise InvalidSpiffeId("segment", segment)
    if "%" not in segment:
        decoded = segment
    else:
        try:
            decoded = unquote_to_bytes(segment).decode()
        except UnicodeDecodeError:
            raise InvalidSpiffeId("utf8", segment) from None
    _require_names(decoded)
    return decoded


def _require_names(*names: str) -> None:
    """Refuse names with which two ids would print alike, dot segments, and control characters."""
    for name in names:
        if not name or "/" in name or name in {".", ".."} or not name.isprintable():
            raise InvalidSpiffeId("name", name)


@lru_cache(maxsize=512)  # a few ids, printed several times for each connection
def _print(trust_domain: TrustDomain, partition: str, names: tuple[str, ...]) -> str:
    prefix = () if partition == DEFAULT else ("ap", partition)
    path = "/".join(quote(name, safe=_KEPT) for name in (*prefix, *names))
    return f"{_SCHEME}://{trust_domain}/{path}"
