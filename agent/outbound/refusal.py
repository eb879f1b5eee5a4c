"""Finds out why a callee broke off after the handshake: by an intention, or for a reason of its own.

With TLS 1.3 a refusal arrives as an end of stream, the same as the end of a callee whose app is down, and
TLS has no alert that OpenSSL would send for us (docs/decisions.md#a-refusal-has-no-alert). So the intentions
with our service as source are looked up once, by the control plane, and name the rule. They explain; the
callee has decided.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio

from agent.base.latest import Latest
from agent.policy.authorize import Verdict, VerdictReason
from agent.policy.source_intentions import Callee, OwnIntentions
from certs.spiffe import ServiceId

WAIT_SECONDS = 1.0  # for the answer; the connection has failed already, and its app waits for the end
FRESH_SECONDS = 1.0  # for which one answer explains every refusal; a rule may change meanwhile

_DENIES = frozenset({VerdictReason.INTENTION_DENY, VerdictReason.DEFAULT_DENY, VerdictReason.NARROWED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """`rule`: the rule that denies us the callee, empty if none does; `text`: what is known, for a person.

    `known`: whether the rules tell; else how the connection broke off is all that is known.
    """

    rule: str
    text: str
    known: bool = False


class RefusalInquiry:
    """Asks for the intentions at most once in FRESH_SECONDS. `ask` has the control plane look them up."""

    def __init__(self, ask: Callable[[], None]) -> None:
        self._ask = ask
        self._until: float | None = None  # by trio's clock
        self._known = 0  # the version of the answer before the one that was asked for

    async def explain(self, cell: Latest[OwnIntentions], ours: ServiceId, callee: Callee) -> Refusal:
        """Return why the callee has refused us, as far as the intentions tell within WAIT_SECONDS."""
        if self._until is None or trio.current_time() >= self._until:
            self._until = trio.current_time() + FRESH_SECONDS
            self._known = cell.version
            self._ask()
        with trio.move_on_after(WAIT_SECONDS):
            await cell.newer(self._known)  # at once, if the answer is there
        return explained(cell.value, ours, callee)


def explained(known: OwnIntentions | None, ours: ServiceId, callee: Callee) -> Refusal:
    """Return why the callee has refused us, by these intentions; None: there was no answer."""
    if known is None:
        return Refusal(rule="", text="which intention it was, if any, is not known: no answer of Consul yet")
    if known.unknown:
        return Refusal(rule="", text=f"which intention it was, if any, is not known: {known.unknown}")
    return _by_verdict(known.verdict(ours, callee))


def _by_verdict(verdict: Verdict | None) -> Refusal:
    if verdict is None:
        return Refusal(rule="", text="see its log")
    if verdict.reason in _DENIES:
        return Refusal(rule=verdict.rule, text=f"denied by {verdict.rule}", known=True)
    if verdict.allowed:
        said = "so its app does not answer, or the log of its sidecar says why"
        return Refusal(rule="", text=f"{verdict.rule} lets us call, {said}", known=True)
    return Refusal(rule="", text=f"by {verdict.rule} it may be denied: see its log")
