"""Judges the requests of one caller by the newest policy; a verdict that was taken before is looked up.

A verdict follows from the policy, the caller, and of the request from its method, the readings of its path
and the headers that the caller's permissions look at (`authorize_request`). These make the key, and the
policy itself holds what was looked up, so that nothing outlives it. A request with an overriding header is
judged anew, and so is each request while the intentions are too old.
"""

from __future__ import annotations

from agent.http1.request import OVERRIDING, HttpRequest
from agent.inbound.http_service import HttpService
from agent.policy.authorize import Policy, Verdict, authorize_request
from certs.spiffe import ServiceId

REMEMBERED = 256  # verdicts for a caller; then all of them are forgotten
LONGEST = 256  # characters of a path, or of a header, of which a verdict is remembered


class RequestJudge:
    """The verdicts on one caller's requests."""

    __slots__ = ("_caller", "_headers", "_policy", "_service", "_verdicts")

    def __init__(self, service: HttpService, caller: ServiceId) -> None:
        self._service = service
        self._caller = caller
        self._policy: Policy | None = None  # of which the verdicts are
        self._headers: tuple[str, ...] = ()  # that its permissions for this caller look at
        self._verdicts: dict[tuple[object, ...], Verdict] = {}

    def verdict(self, request: HttpRequest) -> Verdict:
        """Return the verdict on a request."""
        policy, too_old_since = self._service.newest_policy, self._service.freshness.too_old_since()
        if policy is not self._policy:
            self._begin(policy)
        headers = request.headers
        if too_old_since is not None or not OVERRIDING.isdisjoint(headers):
            return authorize_request(policy, self._caller, request, too_old_since)
        key = (request.method, request.paths, *[headers.get(name) for name in self._headers])
        verdict = self._verdicts.get(key)
        if verdict is None:
            verdict = authorize_request(policy, self._caller, request, None)
            self._remember(key, verdict, request)
        return verdict

    def _begin(self, policy: Policy) -> None:
        rule = policy.deciding(self._caller)
        permissions = None if rule is None else rule.permissions
        self._policy = policy
        self._headers = () if permissions is None else tuple(sorted(permissions.header_names))
        self._verdicts = policy.taken(self._caller)

    def _remember(self, key: tuple[object, ...], verdict: Verdict, request: HttpRequest) -> None:
        values = [value or "" for name in self._headers for value in request.headers.get(name, ())]
        if max(map(len, (request.method, *request.paths, *values))) > LONGEST:
            return
        if len(self._verdicts) >= REMEMBERED:
            self._verdicts.clear()
        self._verdicts[key] = verdict
