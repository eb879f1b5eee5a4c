"""The weathers that a front plays: each treats every request in one way."""

from __future__ import annotations

from dataclasses import dataclass

import trio

from tests.weather.front import Exchange, Weather, Whole

GIGANTIC = 64 << 20  # bytes; a sidecar takes 32 MiB
MEGABYTE = b" " * (1 << 20)
BYTE_SECONDS = 0.0005  # between two bytes of a slow body
# What an agent of 1.10 to 1.18 says that knows no leader, or no server (docs/consul-api.md#errors).
NO_LEADER = "No cluster leader"
NO_SERVER = "No known Consul servers"
LIMITED = "rate limit exceeded for operation Intention.Match, try again later"
# These an agent answers by itself, from its own state and without a server.
LOCAL = ("/v1/agent/service", "/v1/agent/self", "/v1/agent/check")


def answering(status: int, text: str, *, retry_after: int | None = None) -> Weather:
    """Every request is answered with this status, and nothing is passed on."""
    headers = [] if retry_after is None else [(b"retry-after", str(retry_after).encode())]

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(Whole(status, headers, text.encode()))

    return answer


async def without_servers(exchange: Exchange) -> None:
    """The agent answers by itself what it can, and has no server for the rest."""
    if exchange.path.startswith(LOCAL):
        await exchange.answer(await exchange.fetch())
    else:
        await exchange.answer(Whole(500, [], NO_SERVER.encode()))


async def hung(_exchange: Exchange) -> None:
    """No answer comes."""
    await trio.sleep_forever()


async def cut(exchange: Exchange) -> None:
    """The connection is reset in the middle of the body."""
    whole = await exchange.fetch()
    await exchange.begin(whole.status, whole.headers, len(whole.body))
    await exchange.send(whole.body[: len(whole.body) // 2])
    await exchange.close()
    raise trio.ClosedResourceError


async def slow(exchange: Exchange) -> None:
    """The body comes a byte at a time."""
    whole = await exchange.fetch()
    await exchange.begin(whole.status, whole.headers, len(whole.body))
    for place in range(len(whole.body)):
        await exchange.send(whole.body[place : place + 1])
        await trio.sleep(BYTE_SECONDS)
    await exchange.finish()


async def gigantic(exchange: Exchange) -> None:
    """The body is larger than any that a sidecar takes."""
    await exchange.begin(200, [(b"x-consul-index", b"9")], GIGANTIC)
    for _ in range(GIGANTIC // len(MEGABYTE)):
        await exchange.send(MEGABYTE)
    await exchange.finish()


async def broken(exchange: Exchange) -> None:
    """The JSON ends in its middle."""
    whole = await exchange.fetch()
    await exchange.answer(Whole(whole.status, whole.headers, whole.body[: len(whole.body) // 2] or b"{"))


async def reset(exchange: Exchange) -> None:
    """The connection is reset instead of an answer."""
    await exchange.close()
    raise trio.ClosedResourceError


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """One kind of bad weather, which breaks every connection that there is where it is `breaking`.

    `deaf`: connections are accepted, and nothing is read. `endless`: what is being sent at its end is broken
    off.
    """

    name: str
    weather: Weather
    deaf: bool = False
    breaking: bool = False
    endless: bool = False


STORMS = {
    "errors": (
        Storm(name="leader lost (500)", weather=answering(500, NO_LEADER)),
        Storm(name="servers gone, the agent lives", weather=without_servers),
        Storm(name="storm of 500", weather=answering(500, "rpc error making call: EOF")),
        Storm(name="storm of 429, Retry-After 2", weather=answering(429, LIMITED, retry_after=2)),
        Storm(name="storm of 503", weather=answering(503, "unavailable")),
    ),
    "bodies": (
        Storm(name="cut reads", weather=cut),
        Storm(name="slow bodies", weather=slow),
        Storm(name="gigantic bodies", weather=gigantic, endless=True),
        Storm(name="broken JSON", weather=broken),
    ),
    "connections": (
        Storm(name="hung reads", weather=hung),
        Storm(name="resets", weather=reset, breaking=True),
        Storm(name="accept and silence", weather=hung, deaf=True, breaking=True),
    ),
}
