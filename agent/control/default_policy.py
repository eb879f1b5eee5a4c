"""What Consul does with callers that no intention names, learned beside its header.

`X-Consul-Default-Acl-Policy` is the default of ACLs alone, and `default_intention_policy` may deny where that
allows (docs/consul-api.md#the-default-policy). So the agent is asked to authorize a caller that no intention
names: once the intentions have changed, and at intervals. The namespace of the caller is made up too, so that
an intention of any source (`*`) does not name it either. Of the header and the answer the stricter holds.

No answer allows nothing. An answer outlives an outage as the list of intentions does, but not by far a list
that Consul has confirmed since.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from agent.consul.api import Answer, AuthorizeAnswer, Blocking, Consul, ConsulError
from agent.consul.watch import AnswerRejected, Cursor, Watch
from agent.policy.intentions import Intentions

ASK_SECONDS = 60.0  # between two questions while the intentions do not change
KEPT_SECONDS = 300.0  # an answer older than that beside a list is none
UNNAMED = "named-by-no-intention"

_Ground: TypeAlias = tuple[Intentions, bool | None, str]


class DefaultReason(StrEnum):
    """Why an answer does not tell the default."""

    INTENTION_MATCHED = "intention_matched"


def unnamed_caller(trust_domain: str, datacenter: str) -> str:
    """The SPIFFE ID of a caller that no intention names."""
    return f"spiffe://{trust_domain or UNNAMED}/ns/{UNNAMED}/dc/{datacenter or UNNAMED}/svc/{UNNAMED}"


def read_default(answer: Answer[AuthorizeAnswer]) -> AuthorizeAnswer:
    """The answer about the unnamed caller, if it is the default that decided; raise AnswerRejected."""
    if answer.value.reason.startswith("Matched"):  # `*/*` of Enterprise
        raise AnswerRejected(DefaultReason.INTENTION_MATCHED, answer.value.reason)
    return answer.value


async def with_default(intentions: Intentions, consul: Consul, caller: str) -> Intentions:
    """Ask once, where the header allows; what goes wrong is said in the value."""
    if not intentions.default_unknown:
        return intentions
    try:
        answer = read_default(await consul.authorize(intentions.destination, caller))
    except (ConsulError, AnswerRejected) as error:
        return intentions.with_default(None, str(error))
    return intentions.with_default(answer.authorized, answer.reason)


@dataclass(kw_only=True)
class DefaultPolicy:
    """The last answer, and the watch that it came by. `caller` is asked anew each time."""

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

    def laid_over(self, intentions: Intentions, age: float, kept: float) -> Intentions:
        """The intentions, confirmed by Consul `age` seconds ago, with what is known of the default.

        An answer that is `kept` seconds older, or KEPT_SECONDS, counts no more.
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
