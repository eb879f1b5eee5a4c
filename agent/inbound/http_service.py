"""What all connections whose requests are judged share: the newest values, the app, the limits."""

from __future__ import annotations

from dataclasses import dataclass

from agent.base.address import Address, TcpAddress
from agent.base.freshness import Freshness
from agent.base.latest import Latest
from agent.connections.ledger import Ledger
from agent.http1.head import FieldNames
from agent.net.dial import Shun, nothing
from agent.policy.authorize import Policy
from agent.relay.relay import Relay


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpService:
    """What all HTTP connections to our app share. `connect_timeout` in seconds."""

    policy: Latest[Policy]
    freshness: Freshness
    app: Address
    connect_timeout: float
    relay: Relay
    ledger: Ledger
    preamble: bytes = b""  # the first bytes of each connection to the app: a PROXY protocol header
    shun: Shun = nothing
    names: FieldNames = FieldNames.PLAIN

    @property
    def newest_policy(self) -> Policy:
        """What judges the next request."""
        newest = self.policy.value
        assert newest is not None  # checked when the caller was admitted; a cell is never emptied
        return newest

    @property
    def authority(self) -> bytes:
        """The Host for a request of HTTP/1.0 without one."""
        return str(self.app).encode() if isinstance(self.app, TcpAddress) else b"localhost"

    def judged_headers(self) -> frozenset[str]:
        """Return the headers, folded, that any permission looks at."""
        return self.newest_policy.intentions.header_names
