"""`POST /v1/agent/connect/authorize`: the verdict on a caller's certificate.

See docs/consul-api.md#authorize.

The trust domain and the datacenter in the URI are ignored, as in Consul: only the proxy that verified the
chain can vouch for them.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from certs.spiffe import AgentId, InvalidSpiffeId, ServiceId, SigningId, parse
from datacenter.http.context import Datacenter, Reply, Request, Route
from datacenter.http.decode import Fields, decode_or_bad_request
from datacenter.intentions.model import decide, match_destination
from datacenter.state.acl import require
from datacenter.state.errors import bad_request

_SHAPE = Fields("ConnectAuthorizeRequest", {"Target": str, "ClientCertURI": str, "ClientCertSerial": str})
_REMEMBERED = 1024


def routes(dc: Datacenter) -> list[Route]:
    """Return the endpoint."""
    path = "/v1/agent/connect/authorize"
    return [Route("POST", path, _Authorize(dc), forwards=False, allow="OPTIONS,POST")]


def default_verdict(dc: Datacenter) -> tuple[bool, str]:
    """Return the verdict without a matching intention, and why: by the setting, else the ACL default."""
    if dc.settings.default_intention_policy:
        return dc.settings.default_intention_policy == "allow", "Default intention policy"
    return acl_default(dc)


def acl_default(dc: Datacenter) -> tuple[bool, str]:
    """Return the ACL default, the only one that the header and the check endpoint know."""
    if dc.acl.enabled:
        return dc.settings.default_policy_allows, "Default behavior configured by ACLs"
    return True, "ACLs disabled, access is allowed by default"


class _Authorize:
    """Remembers which targets were asked for before, to say HIT or MISS as an agent does."""

    def __init__(self, dc: Datacenter) -> None:
        self._dc = dc
        self._asked: set[str] = set()

    async def __call__(self, request: Request) -> Reply:
        target, caller = self._read(request)
        require(request.authorizer.service_write(target))
        allows, reason = default_verdict(self._dc)
        decision = decide(
            match_destination(self._dc.store, target),
            caller.service,
            namespace=caller.namespace,
            default_allows=allows,
            default_reason=reason,
        )
        value = {"Authorized": decision.allowed, "Reason": decision.reason}
        return Reply(value=value, headers=self._cache_headers(target))

    def _read(self, request: Request) -> tuple[str, ServiceId]:
        body = decode_or_bad_request(request.body, _SHAPE)
        target, uri = body.get("Target", ""), body.get("ClientCertURI", "")
        if not target:
            raise bad_request("Target service must be specified")
        return target, _caller(uri)

    def _cache_headers(self, target: str) -> dict[str, str]:
        if target in self._asked:
            return {"X-Cache": "HIT", "Age": "0"}
        if len(self._asked) < _REMEMBERED:
            self._asked.add(target)
        return {"X-Cache": "MISS"}


def _caller(uri: str) -> ServiceId:
    try:
        identity = parse(uri)
    except InvalidSpiffeId as error:
        raise bad_request("ClientCertURI not a valid Connect identifier") from error
    known_to_1_10 = isinstance(identity, ServiceId | AgentId | SigningId)
    if not known_to_1_10 or urlsplit(uri).path.startswith("/ap/"):
        raise bad_request("ClientCertURI not a valid Connect identifier")
    if not isinstance(identity, ServiceId):
        raise bad_request("ClientCertURI not a valid Service identifier")
    return identity
