"""Registers the checks that the agent itself runs, and sets their state."""

from __future__ import annotations

from datacenter.http.context import Datacenter
from datacenter.state.durations import format_duration
from datacenter.state.store import Document
from datacenter.state.validation import check_kind

STATUSES = ("passing", "warning", "critical")
HEARD = "Heard"  # of a stored check alone: its workload has told of it
SERVICE_MAINTENANCE, NODE_MAINTENANCE = "_service_maintenance:", "_node_maintenance"
MAINTENANCE = (SERVICE_MAINTENANCE, NODE_MAINTENANCE)


def define_check(dc: Datacenter, check: Document, service: Document | None, *, own: bool = False) -> None:
    """Register a check of a service, or of the node. `own`: registered by itself, not with its service.

    A check that is registered again keeps its state; a new one is critical unless its definition says
    otherwise.
    """
    inventory, node, identifier = dc.inventory, dc.settings.node_name, check["CheckID"]
    kind = check_kind(check)
    with dc.store.transaction():
        definition = _definition(check, kind, service)
        before_definition = inventory.definitions.get(identifier)
        if before_definition is None or before_definition.value != definition:
            inventory.definitions.put(identifier, definition)
        before = inventory.check(node, identifier)
        state = before.value if before else {"Status": check.get("Status") or "critical", "Output": ""}
        value = {
            "CheckID": identifier,
            "Name": check["Name"],
            "Status": check.get("Status") or state["Status"],
            "Notes": check.get("Notes", ""),
            "Output": state["Output"],
            **_owner(service),
            **({HEARD: True} if state.get(HEARD) else {}),
            "Type": kind,
            # Consul fills these in only for a check registered by itself.
            "Interval": format_duration(check.get("Interval", 0)) if own else "",
            "Timeout": format_duration(check.get("Timeout", 0)) if own else "",
            "ExposedPort": 0,
            "Definition": {},
        }
        inventory.put_check(node, value)
        inventory.settle_alias(identifier)


def set_check(dc: Datacenter, identifier: str, status: str, output: str, *, heard: bool = False) -> None:
    """Record a check's result; `heard`: from its workload. A check that has been removed is left alone."""
    row = dc.inventory.check(dc.settings.node_name, identifier)
    if row is not None:
        known = {HEARD: True} if heard else {}
        value = {**row.value, "Status": status, "Output": output, **known}
        dc.inventory.put_check(dc.settings.node_name, value)


def set_maintenance(dc: Datacenter, identifier: str, service: Document | None, reason: str | None) -> None:
    """Put a service (None: the node) into maintenance for a reason, or with None end it.

    The first reason stays, as in Consul.
    """
    node = dc.settings.node_name
    if reason is None:
        dc.inventory.remove_check(node, identifier)
    elif dc.inventory.check(node, identifier) is None:
        of = "service" if service else "node"
        default = f"Maintenance mode is enabled for this {of}, but no reason was provided. "
        check = {
            "CheckID": identifier,
            "Name": f"{of.title()} Maintenance Mode",
            "Status": "critical",
            "Notes": reason or f"{default}This is a default message.",
            "Output": "",
            **_owner(service),
            "Type": "maintenance",
            "Interval": "",
            "Timeout": "",
            "ExposedPort": 0,
            "Definition": {},
        }
        dc.inventory.put_check(node, check)


def _owner(service: Document | None) -> Document:
    return {
        "ServiceID": service["ID"] if service else "",
        "ServiceName": service["Service"] if service else "",
        "ServiceTags": service["Tags"] if service else [],
    }


def _definition(check: Document, kind: str, service: Document | None) -> Document:
    return {
        "CheckID": check["CheckID"],
        "Kind": kind,
        "ServiceID": service["ID"] if service else "",
        "TTL": check.get("TTL", 0),
        "TCP": check.get("TCP", ""),
        "HTTP": check.get("HTTP", ""),
        "Method": check.get("Method", ""),
        "Header": check.get("Header", {}),
        "Body": check.get("Body", ""),
        "Interval": check.get("Interval", 0),
        "Timeout": check.get("Timeout", 0),
        "AliasNode": check.get("AliasNode", ""),
        "AliasService": check.get("AliasService", ""),
        "SuccessBeforePassing": check.get("SuccessBeforePassing", 0),
        "FailuresBeforeCritical": check.get("FailuresBeforeCritical", 0),
        "DeregisterCriticalServiceAfter": check.get("DeregisterCriticalServiceAfter", 0),
    }
