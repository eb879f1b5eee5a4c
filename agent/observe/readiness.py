"""Whether the agent can serve, what is missing if not, and the headline of its state; for a person."""

from __future__ import annotations

from collections.abc import Sequence

from agent.base.phase import Phase
from agent.base.watch_status import WatchStatus
from agent.config.collisions import CHECK, PUBLIC
from agent.config.opaque_config import NOT_SERVED
from agent.consul.errors import ConsulError, ConsulReason
from agent.consul.watch import is_gone
from agent.control.bootstrap import token_remedy
from agent.control.self_registration import GONE_GRACE
from agent.observe.agent import Agent
from agent.overview.headline import Facts
from agent.overview.headline import headline as line_of
from upstreams.spec import Upstream


def missing(agent: Agent) -> list[str]:
    """Return what keeps the agent from serving; empty when it is ready."""
    if agent.control.phase is Phase.DRAINING:
        return ["draining"]
    registration = agent.control.snapshot.registration.value
    if registration is None:
        return [f"registration: {_why(agent, agent.control.start_status)}"]
    pieces = [*_credentials(agent), *_registration(agent)]
    if registration.public_unserved:
        pieces += [f"listener: {one}" for one in registration.problems if one.where.startswith(PUBLIC)]
    elif registration.accepts_callers:
        pieces += _intentions(agent)
    pieces += agent.data.problems()
    if agent.control.phase is Phase.STARTING and not pieces:
        pieces.append("listeners: not open yet")
    return pieces


async def failure(agent: Agent, seconds: float) -> str:
    """Return what does not answer within so many seconds though it should; empty if all does.

    While the agent starts or drains nothing has to.
    """
    return await agent.data.failure(seconds) if agent.control.phase is Phase.SERVING else ""


def headline(agent: Agent) -> str:
    """Return the agent's state in one line."""
    return line_of(facts(agent))


def facts(agent: Agent) -> Facts:
    """Return what the headline is made of, without asking another process."""
    failing = [status for status in agent.control.statuses() if status.failing is not None]
    silent = _silent(agent, failing)
    refused = {one.name for one in failing} - {one.name for one in silent}
    registration = agent.control.snapshot.registration.value
    upstreams = () if registration is None else registration.upstreams
    found = [(str(one.destination), _instances(agent, one)) for one in upstreams]
    return Facts(
        phase=agent.control.phase,
        missing=tuple(missing(agent)),
        complaints=(*agent.complaints, *unserved(agent)),
        upstreams=len(upstreams),
        empty=tuple(name for name, count in found if count == 0),
        unknown=tuple(name for name, count in found if count is None),
        silent=max((one.failing_seconds for one in silent), default=None),
        refused=tuple(sorted(refused)),
        leaf_left=_leaf_left(agent),
        failing=tuple(agent.data.warnings()),
        start_timeout=agent.control.settings.start_timeout,
    )


def unserved(agent: Agent) -> list[str]:
    """Return the upstreams of the registration that are not served, and why."""
    registration = agent.control.snapshot.registration.value
    problems = () if registration is None else registration.problems
    return [
        str(one) for one in problems if one.reason in NOT_SERVED and not one.where.startswith((CHECK, PUBLIC))
    ]


def _silent(agent: Agent, failing: Sequence[WatchStatus]) -> Sequence[WatchStatus]:
    """Return the watches that Consul does not answer: no answer at all, or none but 5xx to every watch."""
    if len(failing) == len(list(agent.control.statuses())) and all(
        one.failing is not None and str(one.failing.reason) == ConsulReason.UNAVAILABLE for one in failing
    ):
        return failing
    return [one for one in failing if isinstance(one.failing, ConsulError) and one.failing.unanswered]


def _instances(agent: Agent, upstream: Upstream) -> int | None:
    """Return how many instances of any target may be dialled; None before the first answer."""
    sources = [agent.control.endpoints.source(one, upstream.poll_interval) for one in upstream.targets]
    known = [source.endpoints.value for source in sources]
    if all(endpoints is None for endpoints in known):
        return None
    return sum(len(tier.endpoints) for endpoints in known if endpoints for tier in endpoints.tiers)


def _leaf_left(agent: Agent) -> float | None:
    contexts = agent.control.snapshot.credentials.value
    if contexts is None:
        return None
    return (contexts.credentials.leaf.not_after - agent.control.clock()).total_seconds()


def _credentials(agent: Agent) -> list[str]:
    contexts = agent.control.snapshot.credentials.value
    if contexts is not None:
        fault = contexts.credentials.fault(agent.control.clock())
        return [] if fault is None else [f"credentials: {fault[0].value}: {fault[1]}"]
    rotation = agent.control.credentials
    if rotation is None:
        return ["credentials: not asked for yet"]
    if rotation.status.rejected_reason:
        return [f"credentials: {rotation.status.rejected_reason}: {rotation.status.rejected_detail}"]
    for watch in (rotation.roots_watch, rotation.leaf_watch):
        if watch.status.failing is not None or not watch.status.answers:
            return [f"credentials: {watch.name}: {_why(agent, watch.status)}"]
    return ["credentials: not proven yet"]


def _intentions(agent: Agent) -> list[str]:
    status = agent.control.status_of("intentions")
    if agent.control.snapshot.policy.value is None:
        return [f"intentions: {_why(agent, status)}"]
    since = agent.control.intentions.freshness.too_old_since()
    if since is not None:
        return [f"intentions: too old since {since.isoformat()} (intentions_max_age): {_why(agent, status)}"]
    return []


def _registration(agent: Agent) -> list[str]:
    status = agent.control.status_of("registration")
    since = status.failing_since if status is not None else None
    if status is None or since is None or not is_gone(status):
        return []
    gone = status.failing_seconds > GONE_GRACE
    return [f"registration: Consul has not known {status.name} since {since.isoformat()}"] if gone else []


def _why(agent: Agent, status: WatchStatus | None) -> str:
    if status is None or status.failing is None:
        return "no answer yet"
    return "; ".join(filter(None, (str(status.failing), acl_remedy(agent, status))))


def acl_remedy(agent: Agent, status: WatchStatus) -> str:
    """Return what an operator does about a watch that Consul's ACLs refuse; empty if they do not."""
    registration = agent.control.snapshot.registration.value
    if not isinstance(status.failing, ConsulError):
        return ""
    service = None if registration is None else registration.service
    return token_remedy(agent.control.settings, status.failing, service)
