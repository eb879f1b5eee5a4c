"""The maintenance of one of the agent's services: a critical check, whose notes are the reason."""

from __future__ import annotations

import msgspec

from agent.consul.agent_services import quoted
from agent.consul.api import IMMEDIATE, Consul, segment


class _Check(msgspec.Struct, frozen=True, rename="pascal"):
    notes: str = ""


async def set_maintenance(consul: Consul, service_id: str, reason: str | None) -> None:
    """Put a service into maintenance, or end that if there is no `reason`. Raises ConsulError.

    A service that is in maintenance already keeps its reason (/v1/agent/service/maintenance/:id).
    """
    params = {"enable": "false"} if reason is None else {"enable": "true", "reason": reason}
    await consul.put(f"/v1/agent/service/maintenance/{segment(service_id)}", b"", params)


async def maintenance_reason(consul: Consul, service_id: str) -> str | None:
    """Return why a service is in maintenance, None if it is not (/v1/agent/checks). Raises ConsulError."""
    check_id = f"_service_maintenance:{service_id}"
    text = quoted(check_id)
    params = {"filter": f"CheckID == {text}"} if text else {}
    checks = (await consul.get("/v1/agent/checks", IMMEDIATE, dict[str, _Check], params)).value
    return checks[check_id].notes if check_id in checks else None
