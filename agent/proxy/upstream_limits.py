"""The limits of an upstream, defaults included: for `/status`, and as settings for `sidecar check`."""

from __future__ import annotations

from agent.config.upstream_config import LEAST_POLL_SECONDS, MOST_POLL_SECONDS, POLL_SECONDS
from agent.net.dial import HEAD_START
from agent.outbound.candidates import MOST_ATTEMPTS
from agent.snapshot import NEWS_SECONDS
from upstreams.route import BEFORE_FAILOVER
from upstreams.spec import MOST_WARM, QueryDestination, TunnelMode, Upstream, WanMode


def row(upstream: Upstream) -> dict[str, object]:
    """Return the limits for `/status`; null means none."""
    ejection = upstream.ejection
    return {
        "connect_timeout_seconds": upstream.connect_timeout,
        "deadline_seconds": upstream.deadline,
        "max_connections": upstream.max_connections,
        "max_pending_requests": upstream.max_pending,
        "failover_hold_seconds": upstream.hold,
        "poll_interval_seconds": upstream.poll_interval,
        "warm": upstream.warm,
        "warm_idle_seconds": upstream.warm_idle,
        "passive_health_check": {
            "interval_seconds": ejection.interval,
            "max_failures": ejection.max_failures,
            "base_ejection_seconds": ejection.ejection_time,
            "longest_ejection_seconds": ejection.longest,
            "slow_start_seconds": ejection.slow_start,
        },
        "fixed": {
            "candidates": MOST_ATTEMPTS,
            "candidates_before_stand_ins": BEFORE_FAILOVER,
            "news_seconds": NEWS_SECONDS,
            "address_head_start_seconds": HEAD_START,
            "warm": MOST_WARM,
        },
    }


def written(upstream: Upstream, wan: WanMode, tunnel: TunnelMode) -> list[tuple[str, str, bool]]:
    """Return key, value and whether it is the default; `wan` and `tunnel` are the agent's modes for all."""
    usual = Upstream(destination=upstream.destination, bind=upstream.bind)
    pairs = zip(_texts(upstream, wan, tunnel).items(), _texts(usual, wan, tunnel).values(), strict=True)
    return [(key, text, text == default) for (key, text), default in pairs]


def _texts(upstream: Upstream, wan: WanMode, tunnel: TunnelMode) -> dict[str, str]:
    """Return the values as `[[upstreams]]` has them."""
    ejection = upstream.ejection
    return {
        "connect_timeout_ms": f"{upstream.connect_timeout * 1000:g}",
        "deadline_ms": f"{upstream.deadline * 1000:g}",
        "wan": (upstream.wan or wan).value,
        "mesh_gateway": upstream.mesh_gateway.value or "none",
        "limits.max_connections": _count(upstream.max_connections),
        "limits.max_pending_requests": _count(upstream.max_pending),
        "passive_health_check.interval": _duration(ejection.interval),
        "passive_health_check.max_failures": str(ejection.max_failures),
        "passive_health_check.base_ejection_time": _duration(ejection.ejection_time),
        "failover": ", ".join(map(str, upstream.failover)) or "none",
        "failover_hold": _duration(upstream.hold),
        "poll_interval": _poll(upstream),
        "warm": str(upstream.warm),
        "warm_idle": _duration(upstream.warm_idle),
        "tunnel": (upstream.tunnel or tunnel).value,
    }


def _poll(upstream: Upstream) -> str:
    if upstream.poll_interval is not None:
        return _duration(upstream.poll_interval)
    if any(isinstance(target, QueryDestination) for target in upstream.targets):
        bounds = f"{_duration(LEAST_POLL_SECONDS)} to {_duration(MOST_POLL_SECONDS)}"
        return f"{_duration(POLL_SECONDS)}, or the query's TTL ({bounds})"
    return "none"  # services are watched


def _duration(seconds: float) -> str:
    return f"{seconds:g}s"


def _count(limit: int | None) -> str:
    return "none" if limit is None else str(limit)
