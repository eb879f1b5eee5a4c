"""Learns Consul's default policy for callers that no intention names, beside its header.

`X-Consul-Default-Acl-Policy` is the default of ACLs alone, and `default_intention_policy` may deny where that
allows (docs/consul-api.md#the-default-policy). So the agent is asked to authorize a caller that no intention
names: after each change of the intentions, and at intervals. The caller's namespace is made up as well, so
that an intention of any source (`*`) does not name it either. The stricter of header and answer holds.

Without an answer nothing is allowed by default. An answer survives an outage as the intentions do, but it
does not outlive by much a list that Consul has confirmed since.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from agent.consul.answers import AuthorizeAnswer
from agent.consul.api import Answer, Blocking, Consul
from agent.consul.errors import ConsulError
from agent.consul.watch import AnswerRejected, Cursor, Watch
from agent.policy.intentions import Intentions

ASK_SECONDS = 60.0  # the interval of the question while the intentions do not change
KEPT_SECONDS = 300.0  # an answer older than the list by this counts as none
UNNAMED = "named-by-no-intention"

_Ground: TypeAlias = tuple[Intentions, bool | None, str]


class DefaultReason(StrEnum):
    """Why an answer does not tell the default."""

    INTENTION_MATCHED = "intention_matched"


def unnamed_caller(trust_domain: str, datacenter: str) -> str:
    """Return the SPIFFE ID of a caller that no intention names."""
    return f"spiffe://{trust_domain or UNNAMED}/ns/{UNNAMED}/dc/{datacenter or UNNAMED}/svc/{UNNAMED}"


def read_default(answer: Answer[AuthorizeAnswer]) -> AuthorizeAnswer:
    """Return the answer about the unnamed caller. Raises AnswerRejected if an intention decided it."""
    if answer.value.reason.startswith("Matched"):  # `*/*` of Enterprise
        raise AnswerRejected(DefaultReason.INTENTION_MATCHED, answer.value.reason)
    return answer.value


async def with_default(intentions: Intentions, consul: Consul, caller: str) -> Intentions:
    """Ask once, where the header allows, and return the result; a failure is named in the value."""
    if not intentions.default_unknown:
        return intentions
    try:
        answer = read_default(await consul.authorize(intentions.destination, caller))
    except (ConsulError, AnswerRejected) as error:
        return intentions.with_default(None, str(error))
    return intentions.with_default(answer.authorized, answer.reason)


@dataclass(kw_only=True)
class DefaultPolicy:
    """The last answer, and the watch that brings it. `caller` is called for each question."""

    consul: Consul
    service: str
    caller: Callable[[], str]
    answer: AuthorizeAnswer | None = None
    _laid_over: tuple[_Ground, Intentions] | None = None  # what was built last, and of what

    def __post_init__(self) -> None:
        self.watch: Watch[AuthorizeAnswer, AuthorizeAnswer] = Watch(
            name="default policy",
            cursor=Cursor.POLL,
            ask=self._ask,
            read=read_default,
            publish=self._take,
            poll_interval=ASK_SECONDS,
        )

    @property
    def settled(self) -> bool:
        """Whether the first question has been answered, or has failed."""
        return self.answer is not None or self.watch.status.failing is not None

    def applied_to(self, intentions: Intentions, age: float, kept: float) -> Intentions:
        """Return intentions that Consul confirmed `age` seconds ago, with what is known of the default.

        An answer that is older than they are by `kept` or KEPT_SECONDS counts no more.
        """
        ground = intentions, *self._known(intentions, age, kept)
        if self._laid_over is None or self._laid_over[0] != ground:
            self._laid_over = ground, intentions.with_default(*ground[1:])  # 2 ms for five thousand rules
        return self._laid_over[1]

    def _known(self, intentions: Intentions, age: float, kept: float) -> tuple[bool | None, str]:
        """What the default allows, None where that is not known, and why."""
        status = self.watch.status
        if self.answer is None or status.age is None:
            return None, str(status.failing or intentions.default_unknown)
        if status.failing is not None and status.age - age > min(kept, KEPT_SECONDS):
            return None, str(status.failing)
        return self.answer.authorized, self.answer.reason

    async def _ask(self, _at: Blocking) -> Answer[AuthorizeAnswer]:
        return await self.consul.authorize(self.service, self.caller())

    def _take(self, answer: AuthorizeAnswer) -> None:
        self.answer = answer
