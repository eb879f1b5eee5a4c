"""Policies for tests: rules as Consul answers them, beside what a test wants of ours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from agent.base.clock import now
from agent.base.freshness import Freshness
from agent.base.latest import Latest
from agent.policy.authorize import Policy
from agent.policy.intentions import parse_match

NEVER_TOO_OLD = Freshness(Latest(), math.inf, now)


def policy_of(
    rules: Sequence[object] | None, destination: str = "db", *, default_allow: bool, **ours: Any
) -> Policy:
    """The rules of a match answer. `ours`: narrowings, datacenter, audit."""
    return Policy(intentions=parse_match(rules, destination, default_allow=default_allow), **ours)


def allow_all() -> Policy:
    """No rule, default allow."""
    return policy_of(None, "db", default_allow=True)


def deny_all() -> Policy:
    """No rule, default deny."""
    return policy_of(None, "db", default_allow=False)
