"""ACLs: a token's secret becomes an authorizer, which answers one question per kind of access."""

from __future__ import annotations

from collections.abc import Mapping

from datacenter.state.errors import ApiError, permission_denied
from datacenter.state.settings import Access, Policy, Settings

_MANAGEMENT = Policy(management=True)


class Authorizer:
    """The rights of one token. Every question has a `…_read` and a `…_write` form."""

    __slots__ = ("_default", "_policy")

    def __init__(self, policy: Policy, *, default_allows: bool) -> None:
        self._policy = policy
        self._default = Access.WRITE if default_allows else Access.DENY

    def service_read(self, name: str) -> bool:
        """Return whether the token may see instances and registrations of this service."""
        return self._service(name).value >= Access.READ.value

    def service_write(self, name: str) -> bool:
        """Return whether the token may register this service and act as it (leaf, authorize)."""
        return self._service(name).value >= Access.WRITE.value

    def intention_read(self, destination: str) -> bool:
        """Return whether intentions of this destination may be read: granted, or by rights on the service."""
        granted = _rule(destination, self._policy.intentions, self._policy.intentions_prefix)
        if granted is None and not self._policy.management:
            return self.service_read(destination)
        return self._reaches(granted, Access.READ)

    def intention_write(self, destination: str) -> bool:
        """Return whether intentions may be written; no service rule grants that, the default policy may."""
        granted = _rule(destination, self._policy.intentions, self._policy.intentions_prefix)
        if granted is None and self._named(destination):
            granted = Access.READ
        return self._reaches(granted, Access.WRITE)

    def node_read(self, name: str) -> bool:
        """Return whether the token may see this node."""
        return self._reaches(_rule(name, self._policy.node, self._policy.node_prefix), Access.READ)

    def node_write(self, name: str) -> bool:
        """Return whether the token may register this node and its checks."""
        return self._reaches(_rule(name, self._policy.node, self._policy.node_prefix), Access.WRITE)

    def query_read(self, name: str) -> bool:
        """Return whether the token may read the query's definition; executing needs no such right."""
        return self._reaches(_rule(name, self._policy.query, self._policy.query_prefix), Access.READ)

    def query_write(self, name: str) -> bool:
        """Return whether the token may create, change or delete this prepared query."""
        return self._reaches(_rule(name, self._policy.query, self._policy.query_prefix), Access.WRITE)

    def agent_read(self) -> bool:
        """Return whether the token may see the agent's own configuration and members."""
        return self._reaches(self._policy.agent, Access.READ)

    def operator_read(self) -> bool:
        """Return whether the token may read the CA configuration."""
        return self._reaches(self._policy.operator, Access.READ)

    def operator_write(self) -> bool:
        """Return whether the token may change the CA, sign intermediates, write proxy-defaults."""
        return self._reaches(self._policy.operator, Access.WRITE)

    def _service(self, name: str) -> Access:
        if self._policy.management:
            return Access.WRITE
        return _rule(name, self._policy.service, self._policy.service_prefix) or self._default

    def _named(self, name: str) -> bool:
        return _rule(name, self._policy.service, self._policy.service_prefix) is not None

    def _reaches(self, granted: Access | None, wanted: Access) -> bool:
        if self._policy.management:
            return True
        return (granted or self._default).value >= wanted.value


def _rule(name: str, exact: Mapping[str, Access], prefixes: Mapping[str, Access]) -> Access | None:
    """Return the rule for this name: the exact one, else the longest prefix; None without one."""
    if name in exact:
        return exact[name]
    matching = [prefix for prefix in prefixes if name.startswith(prefix)]
    return prefixes[max(matching, key=len)] if matching else None


def service_identity(name: str) -> Policy:
    """Return Consul's policy of a service identity: to act as itself and its sidecar, to read all others."""
    return Policy(
        service={name: Access.WRITE, f"{name}-sidecar-proxy": Access.WRITE},
        service_prefix={"": Access.READ},
        node_prefix={"": Access.READ},
    )


class Acl:
    """The datacenter's tokens."""

    __slots__ = ("_anonymous", "_default_allows", "_enabled", "_policies")

    def __init__(self, settings: Settings) -> None:
        self._enabled = settings.acls_enabled
        self._default_allows = settings.default_policy_allows
        self._policies = {token.secret: token.policy for token in settings.tokens}
        self._anonymous = self._policies.get("anonymous", Policy())

    @property
    def enabled(self) -> bool:
        """Whether ACLs are on."""
        return self._enabled

    @property
    def default_policy(self) -> str:
        """`allow` or `deny`, as in X-Consul-Default-Acl-Policy; `allow` when ACLs are off."""
        return "allow" if self._default_allows else "deny"

    def resolve(self, secret: str) -> Authorizer:
        """Return the rights of a secret; "" is the anonymous one.

        Raises ApiError 403 for an unknown secret.
        """
        if not self._enabled:
            return Authorizer(_MANAGEMENT, default_allows=True)
        policy = self._policies.get(secret) if secret else self._anonymous
        if policy is None:
            raise ApiError(403, "ACL not found")
        return Authorizer(policy, default_allows=self._default_allows)


def require(allowed: bool, detail: str = "") -> None:
    """Raise the 403 `Permission denied` unless `allowed`."""
    if not allowed:
        raise permission_denied(detail)
