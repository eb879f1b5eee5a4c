"""Registers the checks that the agent itself runs, and sets their state."""

from __future__ import annotations

from datacenter.http.context import Datacenter
from datacenter.state.durations import format_duration
from datacenter.state.store import Document
from datacenter.state.validation import check_kind

STATUSES = ("passing", "warning", "critical")


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
            "ServiceID": service["ID"] if service else "",
            "ServiceName": service["Service"] if service else "",
            "ServiceTags": service["Tags"] if service else [],
            "Type": kind,
            # Consul fills these in only for a check registered by itself.
            "Interval": format_duration(check.get("Interval", 0)) if own else "",
            "Timeout": format_duration(check.get("Timeout", 0)) if own else "",
            "ExposedPort": 0,
            "Definition": {},
        }
        inventory.put_check(node, value)
        inventory.settle_alias(identifier)


def set_check(dc: Datacenter, identifier: str, status: str, output: str) -> None:
    """Record a check's result. A check that has been removed is left alone."""
    row = dc.inventory.check(dc.settings.node_name, identifier)
    if row is not None:
        dc.inventory.put_check(dc.settings.node_name, {**row.value, "Status": status, "Output": output})


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
