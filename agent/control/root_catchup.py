"""Roots before the leaf, also when the leaf arrives first.

Roots and leaf come by two watches, and nothing orders them: after a rotation the new leaf can be here a
moment before the new root. It proves all the same, through its cross-signature to an older root; but a
sidecar that shows a leaf of the new root has to trust that root, or it turns away peers which show no
cross-signature. A leaf of which the newest roots do not announce the signer (`SigningKeyID`,
docs/consul-api.md#roots) is therefore ahead of them. Then the roots are read at once, without an index, and
the leaf waits for them: for that answer or the watch's, whichever is first, and never for long. A roots
endpoint that hangs must not keep a proven leaf back. An answer with a lower index than the watch has seen is
one of the past: it may list a root that has been removed since, and is not taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from enum import StrEnum

import trio

from agent.base.latest import Latest
from agent.consul.api import Answer, ConsulError, Json
from agent.consul.watch import AnswerRejected
from agent.control.watches import read_roots
from certs.bundle import TrustBundle
from certs.leaf import Leaf


class CatchUp(StrEnum):
    """What came of reading the roots for a leaf that was ahead of them."""

    CAME = "came"
    BEHIND = "behind"  # the answer does not announce its signer either
    FAILED = "failed"
    LATE = "late"  # no answer in time


class RootsFirst:
    """Has the roots of a leaf before the leaf is taken, if they are to be had."""

    def __init__(
        self,
        ask: Callable[[], Awaitable[Answer[Json]]],
        bundle: Latest[TrustBundle],
        take: Callable[[TrustBundle], None],
        newest: Callable[[], int],  # the index of the newest roots
    ) -> None:
        self._question = ask
        self._bundle = bundle
        self._take = take
        self._newest = newest
        self.results: Counter[CatchUp] = Counter()  # ever

    async def have(self, leaf: Leaf, seconds: float) -> CatchUp | None:
        """Wait for its roots, so many seconds at most; None when they are here already."""
        if _announces(self._bundle.value, leaf):
            return None
        result = CatchUp.LATE
        with trio.move_on_after(seconds):
            result = await self._ask_or_hear(leaf)
        self.results[result] += 1
        return result

    async def _ask_or_hear(self, leaf: Leaf) -> CatchUp:
        result = CatchUp.CAME  # by the watch
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hear, leaf, nursery.cancel_scope)
            result = await self._ask(leaf)
            nursery.cancel_scope.cancel()
        return result

    async def _ask(self, leaf: Leaf) -> CatchUp:
        try:
            answer = await self._question()
            bundle = read_roots(answer)
        except (ConsulError, AnswerRejected):
            return CatchUp.FAILED
        if (answer.index or 1) < self._newest() or not _announces(bundle, leaf):
            return CatchUp.BEHIND  # out of an older cache than ours, perhaps: nothing to take
        self._take(bundle)
        return CatchUp.CAME

    async def _hear(self, leaf: Leaf, scope: trio.CancelScope) -> None:
        version = self._bundle.version
        while not _announces(self._bundle.value, leaf):
            _, version = await self._bundle.newer(version)
        scope.cancel()


def _announces(bundle: TrustBundle | None, leaf: Leaf) -> bool:
    """A leaf that does not state who signed it cannot be seen to be ahead."""
    return not leaf.signer or (bundle is not None and bundle.announces(leaf.signer))
