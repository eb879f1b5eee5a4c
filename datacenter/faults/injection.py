"""A frame and a wire that apply the present faults before the real ones act."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import trio

from datacenter.faults.bad_answers import corrupted
from datacenter.faults.endpoints import PATH
from datacenter.http.forward import Received, Wire
from datacenter.http.frame import FORWARDED, TEXT, Frame, RawReply, RawRequest, token_of
from datacenter.state.errors import ApiError
from datacenter.state.switches import Faults


class FaultyFrame:
    """Answers as the frame does, apart from the present faults. Its own endpoint is never affected."""

    def __init__(self, frame: Frame, faults: Faults) -> None:
        self._frame = frame
        self._faults = faults
        self.dc = frame.dc

    async def handle(self, raw: RawRequest) -> RawReply:
        """Answer one request."""
        faults = self._faults
        if raw.path == PATH:
            return await self._frame.handle(raw)
        query = parse_qs(raw.query)
        blocks = "index" in query or "hash" in query
        while blocks and faults.hangs(raw.path):
            await faults.changed()
        if faults.revoked and token_of(raw) in faults.revoked:
            return _text(403, "ACL not found")
        if FORWARDED in raw.headers:
            return await self._over_the_wan(raw)
        reply = await self._frame.handle(raw)
        if faults.corrupt is not None and reply.status == 200:
            return replace(reply, body=corrupted(self.dc, faults.corrupt, raw.path, reply.body))
        return reply

    async def _over_the_wan(self, raw: RawRequest) -> RawReply:
        """Answer a call from another datacenter; a cut breaks it off as one under way."""
        if self._faults.wan_cut:
            return _cut()
        replies: list[RawReply] = []

        async def answer(scope: trio.CancelScope) -> None:
            replies.append(await self._frame.handle(raw))
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer, nursery.cancel_scope)
            nursery.start_soon(_cancel_when_cut, self._faults, nursery.cancel_scope)
        return replies[0] if replies and not self._faults.wan_cut else _cut()


class FaultyWire:
    """Carries no call while the WAN is cut; calls under way break off."""

    def __init__(self, wire: Wire, faults: Faults) -> None:
        self._wire = wire
        self._faults = faults

    async def exchange(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes, patience: float
    ) -> Received:
        """Send one call. Raises ApiError."""
        if self._faults.wan_cut:
            address = urlsplit(url).netloc
            failure = f"dial tcp {address}: connect: no route to host"
            raise ApiError(500, f"rpc error getting client: failed to get conn: {failure}")
        received: list[Received] = []
        failed: list[ApiError] = []

        async def call(scope: trio.CancelScope) -> None:
            try:
                received.append(
                    await self._wire.exchange(method, url, headers=headers, body=body, patience=patience)
                )
            except ApiError as error:
                failed.append(error)
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, nursery.cancel_scope)
            nursery.start_soon(_cancel_when_cut, self._faults, nursery.cancel_scope)
        if failed:
            raise failed[0]
        if not received or self._faults.wan_cut:
            raise ApiError(500, "rpc error making call: EOF")
        return received[0]


async def _cancel_when_cut(faults: Faults, scope: trio.CancelScope) -> None:
    while not faults.wan_cut:
        await faults.changed()
    scope.cancel()


def _cut() -> RawReply:
    return _text(500, "rpc error making call: the WAN is cut on purpose")


def _text(status: int, text: str) -> RawReply:
    return RawReply(status=status, headers={"Content-Type": TEXT}, body=text.encode())
