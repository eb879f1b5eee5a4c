"""Envoy's HTTP connection manager as the far sidecar: pooled connections, judged request by request here."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import trio

from tests.certs.authority import Issuer, pem
from tests.interop import envoy
from tests.interop.holder import Holder
from tests.scenarios.http_app import AppSide, Reached
from tests.scenarios.http_front import Front, allow, deny, front

pytestmark = [pytest.mark.envoy, pytest.mark.usefixtures("envoy_binary")]

RULES = (deny(PathPrefix="/admin"), allow(PathPrefix="/", Methods=["GET", "PUT"]))


def web(root: Issuer) -> Holder:
    """web's identity in dc1, for Envoy."""
    leaf = root.leaf(service="web", datacenter="dc1")
    return Holder(uri="", cert_pem=leaf.cert_pem, key_pem=leaf.key_pem, roots_pem=pem(root.certificate))


def through(f: Front, directory: Path) -> AbstractContextManager[envoy.Envoy]:
    """What Envoy needs to be web's sidecar."""
    contexts = f.mesh.db.contexts.value
    assert contexts is not None
    expects = str(contexts.credentials.leaf.id)
    return envoy.originating(directory, web(f.mesh.root), f.mesh.public.port, expects, http=True)


async def curl(peer: envoy.Envoy, *words: str) -> str:
    """curl's output; URL is Envoy's listener."""
    filled = [word.replace("URL", f"http://127.0.0.1:{peer.port}", 1) for word in words]
    command = ["curl", "-sS", "--path-as-is", "--max-time", "10", *filled]
    return (await trio.run_process(command, capture_stdout=True)).stdout.decode()


async def test_its_requests_are_judged_one_by_one(tmp_path: Path) -> None:
    async with front(*RULES) as f:
        with through(f, tmp_path) as peer:
            for _ in range(5):
                assert await curl(peer, "URL/x") == "ok"
                assert "permission_deny" in await curl(peer, "URL/admin/x")
                assert "permission_deny" in await curl(peer, "URL//admin/x")
                assert "default_deny" in await curl(peer, "-X", "POST", "-d", "x", "URL/x")
            assert len(f.app.reached) == 5
            (identity,) = f.app.reached[0].header("x-forwarded-client-cert")
            assert identity.endswith("/ns/default/dc/dc1/svc/web")
            seen = peer.counters("cluster.to.upstream_cx")
            assert seen["upstream_cx_total"] < 10  # they share connections, refusals do not cost one


async def test_bodies_both_ways(tmp_path: Path) -> None:
    async def mirror(side: AppSide, asked: Reached) -> None:
        await side.body(asked)
        chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(asked.body), asked.body)
        await side.say("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", body=chunked)

    body = tmp_path / "body"
    body.write_text("x" * 3_000_000)
    async with front(*RULES, answer=mirror) as f:
        with through(f, tmp_path / "envoy") as peer:
            for header in ("Transfer-Encoding: chunked", "X: y", "Expect: 100-continue"):
                assert await curl(peer, "-T", str(body), "-H", header, "URL/up") == body.read_text()


async def test_many_callers_at_once(tmp_path: Path) -> None:
    async with front(*RULES) as f:
        with through(f, tmp_path) as peer:
            statuses = ["-o", "/dev/null", "-w", "%{http_code}\n", "--parallel", "--parallel-max", "20"]
            text = await curl(peer, *statuses, *["URL/x?[1-200]"])
            assert text.split() == ["200"] * 200
            assert len(f.app.reached) == 200


@pytest.mark.parametrize("path", ["/ws", "/admin/ws"])
async def test_a_websocket(path: str, tmp_path: Path) -> None:
    async def shout(side: AppSide, asked: Reached) -> None:
        await side.say("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: websocket")
        while data := side.buffer or await side.stream.receive_some():
            side.buffer = b""
            await side.stream.send_all(data.upper())
        raise trio.EndOfChannel

    async with front(*RULES, answer=shout) as f:
        with through(f, tmp_path) as peer:
            stream = await trio.open_tcp_stream("127.0.0.1", peer.port)
            async with stream:
                head = f"GET {path} HTTP/1.1\r\nHost: db\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
                await stream.send_all(head.encode())
                answer = await stream.receive_some()
                if path != "/ws":
                    assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
                    return
                assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
                await stream.send_all(b"hello")
                assert await stream.receive_some() == b"HELLO"
