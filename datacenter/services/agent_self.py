"""/v1/agent/self, members and /v1/status: this agent, as far as clients ask about it; and its own node."""

from __future__ import annotations

import ipaddress
import uuid
from functools import partial

from datacenter.http.context import Datacenter, Reply, Request, Route
from datacenter.services.registration import normal_service
from datacenter.state.acl import require
from datacenter.state.database import StoreUnavailable
from datacenter.state.inventory import SERF_HEALTH, SERVER_SERVICE
from datacenter.state.settings import Settings
from datacenter.state.store import Document, Store

VERSION = "1.10.12"  # the Consul version whose API this is
SERVER_PORT = 8300  # where a server's RPC would be; this process does not listen there
_OWNER = "datacenter"  # private document: whose store this is
_AGENT = "agent"  # table: what this agent remembers about itself


def routes(dc: Datacenter) -> list[Route]:
    """The routes of this module."""
    local = partial(Route, forwards=False)
    return [
        local("GET", "/v1/agent/self", partial(_self, dc)),
        local("GET", "/v1/agent/members", partial(_members, dc)),
        Route("GET", "/v1/status/leader", partial(_leader, dc)),
        Route("GET", "/v1/status/peers", partial(_peers, dc)),
    ]


def require_own_store(settings: Settings, store: Store) -> None:
    """Note in the store whose it is. Raises StoreUnavailable for that of another datacenter."""
    owner = (store.private(_OWNER) or {}).get("Name", settings.name)
    if owner != settings.name:
        remedy = f"give {settings.name} a data-dir of its own, or start this one with -name {owner}"
        whose = f"is of datacenter {owner}, not of {settings.name}"
        raise StoreUnavailable(f"{settings.data_dir} {whose}: {remedy}")
    if store.private(_OWNER) is None:
        store.put_private(_OWNER, {"Name": owner})


def register_own_node(dc: Datacenter) -> None:
    """Put our node, its server and its serfHealth check into the catalog. The node ID survives restarts."""
    settings, inventory = dc.settings, dc.inventory
    remembered = dc.store.table(_AGENT).get("node")
    fresh = {"ID": str(uuid.UUID(int=dc.rng.getrandbits(128), version=4)), "Name": settings.node_name}
    own = remembered.value if remembered else fresh
    with dc.store.transaction():
        if own["Name"] != settings.node_name:
            # An agent serves one node: services under the old name would belong to no agent.
            for row in inventory.definitions.rows():
                inventory.definitions.delete(row.key)
            inventory.remove_node(own["Name"])
        dc.store.table(_AGENT).put("node", {"ID": own["ID"], "Name": settings.node_name})
        inventory.put_node(settings.node_name, _own_node(dc, own["ID"]))
        inventory.put_service(settings.node_name, _server_service())
        inventory.put_check(settings.node_name, _serf_health())


def _own_node(dc: Datacenter, identifier: str) -> Document:
    settings = dc.settings
    tags = {"lan": settings.node_address, "wan": settings.node_wan_address}
    for scope, address in (("lan", settings.node_address), ("wan", settings.node_wan_address)):
        try:
            tags[f"{scope}_ipv{ipaddress.ip_address(address).version}"] = address
        except ValueError:
            continue  # a host name has no family
    return {
        "ID": identifier,
        "Node": settings.node_name,
        "Address": settings.node_address,
        "TaggedAddresses": tags,
        "Meta": {"consul-network-segment": ""},
    }


def _server_service() -> Document:
    meta = {
        "non_voter": "false",
        "raft_version": "3",
        "read_replica": "false",
        "serf_protocol_current": "2",
        "serf_protocol_max": "5",
        "serf_protocol_min": "1",
        "version": VERSION,
    }
    return normal_service(
        {"ID": SERVER_SERVICE, "Service": SERVER_SERVICE, "Port": SERVER_PORT, "Meta": meta}
    )


def _serf_health() -> Document:
    return {
        "CheckID": SERF_HEALTH,
        "Name": "Serf Health Status",
        "Status": "passing",
        "Notes": "",
        "Output": "Agent alive and reachable",
        "ServiceID": "",
        "ServiceName": "",
        "ServiceTags": [],
        "Type": "",
        "Interval": "",
        "Timeout": "",
        "ExposedPort": 0,
        "Definition": {},
    }


async def _self(dc: Datacenter, request: Request) -> Reply:
    require(request.authorizer.agent_read())
    settings, node = dc.settings, dc.inventory.nodes.get(dc.settings.node_name)
    config = {
        "Datacenter": settings.name,
        "PrimaryDatacenter": settings.primary_datacenter,
        "NodeName": settings.node_name,
        "NodeID": node.value["ID"] if node else "",
        "Revision": "",
        "Server": True,
        "Version": VERSION,
    }
    debug = {
        "ACLsEnabled": dc.acl.enabled,
        "ACLDefaultPolicy": dc.acl.default_policy,
        "ConnectEnabled": True,
        "Datacenter": settings.name,
        "NodeName": settings.node_name,
        "PrimaryDatacenter": settings.primary_datacenter,
        "ServerMode": True,
        "TranslateWANAddrs": settings.translate_wan_addrs,
    }
    return Reply(
        value={
            "Config": config,
            "DebugConfig": debug,
            "Coord": {"Vec": [0.0] * 8, "Error": 1.5, "Adjustment": 0.0, "Height": 0.00001},
            "Member": _member(dc),
            "Stats": _stats(dc),
            "Meta": {"consul-network-segment": ""},
            "xDS": {"SupportedProxies": {"envoy": []}},  # there is no xDS here
        }
    )


async def _members(dc: Datacenter, request: Request) -> Reply:
    authorizer = request.authorizer
    return Reply(value=[_member(dc)] if authorizer.node_read(dc.settings.node_name) else [])


async def _leader(dc: Datacenter, request: Request) -> Reply:  # noqa: ARG001  a handler takes a request
    return Reply(value=_server_address(dc))


async def _peers(dc: Datacenter, request: Request) -> Reply:  # noqa: ARG001  a handler takes a request
    return Reply(value=[_server_address(dc)])


def _server_address(dc: Datacenter) -> str:
    return f"{dc.settings.node_address}:{SERVER_PORT}"


def _member(dc: Datacenter) -> Document:
    node = dc.inventory.nodes.get(dc.settings.node_name)
    tags = {
        "acls": "1" if dc.acl.enabled else "0",
        "bootstrap": "1",
        "build": f"{VERSION}:",
        "dc": dc.settings.name,
        "id": node.value["ID"] if node else "",
        "port": str(SERVER_PORT),
        "raft_vsn": "3",
        "role": "consul",
        "segment": "",
        "vsn": "2",
        "vsn_max": "3",
        "vsn_min": "2",
        "wan_join_port": "8302",
        "ft_fs": "1",
        "ft_si": "1",
    }
    versions = {"ProtocolMin": 1, "ProtocolMax": 5, "ProtocolCur": 2}
    delegate = {"DelegateMin": 2, "DelegateMax": 5, "DelegateCur": 4}
    where = {"Name": dc.settings.node_name, "Addr": dc.settings.node_address, "Port": 8301}
    return {**where, "Tags": tags, "Status": 1, **versions, **delegate}


def _stats(dc: Datacenter) -> Document:
    """Return the groups that clients read; raft, serf and runtime groups have no counterpart here."""
    checks = dc.inventory.definitions.rows()
    kinds = [row.value["Kind"] for row in checks]
    return {
        "agent": {
            "check_monitors": "0",
            "check_ttls": str(kinds.count("ttl")),
            "checks": str(len(dc.inventory.agent_checks())),
            "services": str(len(dc.inventory.agent_services())),
        },
        "build": {"prerelease": "", "revision": "", "version": VERSION},
        "consul": {
            "acl": "enabled" if dc.acl.enabled else "disabled",
            "bootstrap": "true",
            "known_datacenters": str(len(dc.federation.datacenters())),
            "leader": "true",
            "leader_addr": _server_address(dc),
            "server": "true",
        },
    }
