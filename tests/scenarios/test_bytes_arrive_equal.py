"""What one app sends is what the other receives: by hash, in both directions, at any size."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest
import trio

from agent.relay.splice import Ending
from tests.support.two_sidecars import Mesh, echo, mesh, receive_all, until

BLOCK = bytes(range(256)) * 1024  # 256 KiB; numbered below, so that a repeated or lost block shows
MIB = 1 << 20


def blocks(total: int) -> list[bytes]:
    """The blocks of a stream, none like another."""
    return [number.to_bytes(8, "big") + BLOCK[8:] for number in range(total // len(BLOCK))]


def digest(total: int) -> str:
    hashed = hashlib.sha256()
    for block in blocks(total):
        hashed.update(block)
    return hashed.hexdigest()


async def send_blocks(stream: trio.SocketStream, total: int) -> None:
    for block in blocks(total):
        await stream.send_all(block)
    await stream.send_eof()


async def hash_all(stream: trio.SocketStream) -> str:
    hashed = hashlib.sha256()
    async for data in stream:
        hashed.update(data)
    return hashed.hexdigest()


async def both_ways(total: int) -> Mesh:
    """The client streams up while the app streams down; both hash."""
    seen: list[str] = []

    async def app(stream: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_blocks, stream, total)
            seen.append(await hash_all(stream))

    async with mesh(app) as m:
        client = await m.connect()
        async with client, trio.open_nursery() as nursery:
            nursery.start_soon(send_blocks, client, total)
            assert await hash_all(client) == digest(total)
        await m.quiet()
        await until(lambda: bool(seen))  # what the kernel still holds is the app's to read
        assert seen == [digest(total)]
        for side in (m.web, m.db):
            ended = await side.finished()
            assert ended.reason is Ending.CLEAN
            assert (ended.to_plain, ended.to_tls) == (total, total)
    return m


async def test_64_mib_each_way_at_once() -> None:
    await both_ways(64 * MIB)


@pytest.mark.slow
async def test_one_gib_each_way_at_once() -> None:
    began = time.perf_counter()
    await both_ways(1024 * MIB)
    print(f"1 GiB each way in {time.perf_counter() - began:.1f} s")  # noqa: T201


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 16384, 16385, 65536, 65537, 1 << 20])
async def test_any_size_comes_back(size: int) -> None:
    payload = (BLOCK * 5)[:size]
    async with mesh(echo) as m:
        client = await m.connect()
        async with client:
            await client.send_all(payload)
            await client.send_eof()
            assert await receive_all(client) == payload


async def test_unix_sockets_at_both_ends(tmp_path: Path) -> None:
    async with mesh(echo, app_socket=tmp_path / "app", upstream_socket=tmp_path / "up") as m:
        client = await m.connect()
        payload = BLOCK * 8
        async with client, trio.open_nursery() as nursery:

            async def send() -> None:
                await client.send_all(payload)
                await client.send_eof()

            nursery.start_soon(send)
            assert await receive_all(client) == payload
        await m.quiet()
        assert m.db.ledger.recent()[-1].reason is Ending.CLEAN
        assert m.web.ledger.recent()[-1].caller == "unix"
