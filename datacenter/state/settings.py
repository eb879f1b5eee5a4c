"""The settings of one embedded datacenter, parsed in `datacenter.config.options` and frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path


class Access(Enum):
    """The access that a rule grants; a higher value includes the lower ones."""

    DENY = 0
    READ = 1
    WRITE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Rules of one token: exact names before prefixes, the longest prefix first, then the default policy."""

    management: bool = False
    service: Mapping[str, Access] = field(default_factory=dict)
    service_prefix: Mapping[str, Access] = field(default_factory=dict)
    intentions: Mapping[str, Access] = field(default_factory=dict)
    intentions_prefix: Mapping[str, Access] = field(default_factory=dict)
    node: Mapping[str, Access] = field(default_factory=dict)
    node_prefix: Mapping[str, Access] = field(default_factory=dict)
    query: Mapping[str, Access] = field(default_factory=dict)
    query_prefix: Mapping[str, Access] = field(default_factory=dict)
    agent: Access | None = None
    operator: Access | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One secret and its rights."""

    secret: str = field(repr=False)
    policy: Policy
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One datacenter's settings. Durations are seconds; addresses are as given."""

    name: str
    http_addr: str  # host:port, or unix:///path
    data_dir: Path | None  # None: memory only, for tests
    primary_datacenter: str  # its own name in the primary
    primary_addr: str | None = None  # base URL of the primary's HTTP API; None in the primary
    replication_token: str = field(default="", repr=False)
    http_hosts: tuple[str, ...] = ()  # names by which it may be asked, beside its addresses
    http_max_conns_per_client: int = 200  # TCP connections of one client address; 0: no limit
    advertise_addr: str = ""  # base URL under which other datacenters reach this one
    translate_wan_addrs: bool = False
    default_policy_allows: bool = True
    default_intention_policy: str = ""  # "allow" or "deny"; empty: as ACLs do
    tokens: tuple[Token, ...] = ()
    leaf_ttl: float = 72 * 3600.0
    leaf_rotation_jitter: float = 30.0  # leaves are re-issued within this time after a new root
    node_name: str = "node"
    node_address: str = "127.0.0.1"
    node_wan_address: str = "127.0.0.1"
    log_level: str = "info"
    enable_faults: bool = False  # an endpoint that breaks things on purpose

    @property
    def is_primary(self) -> bool:
        """Whether the root CA and the intentions are here."""
        return self.name == self.primary_datacenter

    @property
    def acls_enabled(self) -> bool:
        """Whether ACLs are on: with a default of deny, or with any token."""
        return bool(self.tokens) or not self.default_policy_allows
