"""Gets the roots before the leaf, also when the leaf arrives first.

Two watches bring roots and leaf, in no fixed order: after a rotation the new leaf may be here a moment before
the new root. It can be proven all the same, through its cross-signature to an older root. But a sidecar that
shows a leaf of the new root must trust that root, or it refuses peers that show no cross-signature. A leaf
whose signer the newest roots do not announce (`SigningKeyID`, docs/consul-api.md#roots) is therefore ahead of
them. Then the roots are asked for at once, without an index, and the leaf waits for that answer or the
watch's, whichever is first, for a short time only, since a roots endpoint that hangs must not hold back a
proven leaf. An answer with a lower index than the watch has seen is an old one: it may list a root that has
been removed since, and is not taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from enum import StrEnum

import trio

from agent.base.latest import Latest
from agent.consul.api import Answer, Json
from agent.consul.errors import ConsulError
from agent.consul.watch import AnswerRejected
from agent.control.watches import read_roots
from certs.bundle import TrustBundle
from certs.leaf import Leaf


class CatchUp(StrEnum):
    """The result of asking for the roots of a leaf that was ahead of them."""

    CAME = "came"
    BEHIND = "behind"  # the answer does not announce the signer either
    FAILED = "failed"
    LATE = "late"  # no answer in time


class RootsFirst:
    """Gets the roots of a leaf before the leaf is taken, if possible."""

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
        self.results: Counter[CatchUp] = Counter()  # since the start

    async def have(self, leaf: Leaf, seconds: float) -> CatchUp | None:
        """Wait at most `seconds` for the leaf's roots; return None if they are here already."""
        if _announces(self._bundle.value, leaf):
            return None
        result = CatchUp.LATE
        with trio.move_on_after(seconds):
            result = await self._ask_or_hear(leaf)
        self.results[result] += 1
        return result

    async def _ask_or_hear(self, leaf: Leaf) -> CatchUp:
        result = CatchUp.CAME  # if the watch brings them
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
            return CatchUp.BEHIND  # perhaps from a cache that is older than our roots: nothing to take
        self._take(bundle)
        return CatchUp.CAME

    async def _hear(self, leaf: Leaf, scope: trio.CancelScope) -> None:
        version = self._bundle.version
        while not _announces(self._bundle.value, leaf):
            _, version = await self._bundle.newer(version)
        scope.cancel()


def _announces(bundle: TrustBundle | None, leaf: Leaf) -> bool:
    """Return whether the bundle announces the leaf's signer; True for a leaf that states none."""
    return not leaf.signer or (bundle is not None and bundle.announces(leaf.signer))
