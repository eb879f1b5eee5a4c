"""An end of stream in one direction arrives as one, and the other direction lives on."""

from __future__ import annotations

import trio

from agent.connections.ledger import Ledger
from agent.relay.splice import Ending
from tests.support.two_sidecars import mesh, receive_all, until


async def test_the_client_ends_first_and_still_gets_its_answer() -> None:
    async def app(stream: trio.SocketStream) -> None:
        request = await receive_all(stream)  # only an end of stream lets this return
        await stream.send_all(b"answer to " + request)

    async with mesh(app) as m:
        client = await m.connect()
        async with client:
            await client.send_all(b"question")
            await client.send_eof()
            assert await receive_all(client) == b"answer to question"
        await m.quiet()
        assert m.web.ledger.recent()[-1].reason is Ending.CLEAN
        assert m.db.ledger.recent()[-1].reason is Ending.CLEAN


async def test_the_app_ends_first_and_still_hears_the_client() -> None:
    heard: list[bytes] = []

    async def app(stream: trio.SocketStream) -> None:
        await stream.send_all(b"that is all from me")
        await stream.send_eof()
        heard.append(await receive_all(stream))

    async with mesh(app) as m:
        client = await m.connect()
        async with client:
            assert await receive_all(client) == b"that is all from me"  # ends while our side is open
            for word in (b"but ", b"not ", b"from ", b"me"):
                await client.send_all(word)
            await client.send_eof()
            await m.quiet()
        await until(lambda: heard != [])
        assert heard == [b"but not from me"]
        assert m.web.ledger.recent()[-1].reason is Ending.CLEAN
        assert m.db.ledger.recent()[-1].reason is Ending.CLEAN


async def test_an_end_behind_a_full_pipe_is_not_lost() -> None:
    """The end of stream comes while megabytes before it are still blocked by a reader who has not begun."""
    payload = bytes(range(256)) * 32768  # 8 MiB: more than every buffer on the way together
    may_read = trio.Event()
    heard: list[bytes] = []

    async def app(stream: trio.SocketStream) -> None:
        await may_read.wait()
        heard.append(await receive_all(stream))

    async with mesh(app) as m:
        client = await m.connect()
        async with client, trio.open_nursery() as nursery:

            async def send() -> None:
                await client.send_all(payload)
                await client.send_eof()

            nursery.start_soon(send)
            await _until_stalled(m.web.ledger)
            may_read.set()
            assert await receive_all(client) == b""
        await m.quiet()
        await until(lambda: heard != [])
        assert heard == [payload]


async def _until_stalled(ledger: Ledger) -> None:
    """Wait until no more bytes move."""
    before = -1
    while True:
        await trio.sleep(0.05)
        moved = sum(connection.progress.to_tls for connection in ledger.live())
        if moved == before and moved:
            return
        before = moved
