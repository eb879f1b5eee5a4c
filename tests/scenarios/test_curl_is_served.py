"""curl, a peer we did not write: app → sidecar → mTLS → sidecar judging HTTP → app."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import trio

from agent.base.address import TcpAddress
from tests.scenarios.http_front import Front, allow, deny, front

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


async def curl(f: Front, *words: str) -> str:
    """curl's output; `URL` in the words is web's upstream."""
    upstream = f.mesh.upstream
    assert isinstance(upstream, TcpAddress)
    filled = [word.replace("URL", f"http://{upstream}", 1) for word in words]
    command = ["curl", "--silent", "--show-error", "--path-as-is", "--max-time", "10", *filled]
    return (await trio.run_process(command, capture_stdout=True)).stdout.decode()


STATUS = ("-o", "/dev/null", "-w", "%{http_code} %{num_connects}\n")


async def test_what_is_allowed_and_what_is_not() -> None:
    async with front(deny(PathPrefix="/admin"), allow(PathPrefix="/", Methods=["GET"])) as f:
        assert await curl(f, "URL/x") == "ok"
        assert (
            await curl(f, "URL/admin") == "403 Forbidden: web may not make this request (permission_deny)\n"
        )
        assert await curl(f, *STATUS, "URL/x/../admin/y") == "403 1\n"
        assert await curl(f, *STATUS, "URL/x%2fadmin") == "400 1\n"
        assert await curl(f, *STATUS, "-X", "POST", "-d", "x=1", "URL/x") == "403 1\n"
        assert (await curl(f, "-I", "URL/x")).startswith("HTTP/1.1 403 Forbidden\r\n")
        assert [r.target for r in f.app.reached] == ["/x"]


async def test_one_connection_goes_on_after_a_refusal() -> None:
    async with front(deny(PathPrefix="/admin"), allow(PathPrefix="/")) as f:
        lines = await curl(f, *STATUS, "URL/1", "URL/admin", "URL/2", *STATUS[:2], *STATUS[:2])
        assert lines.splitlines() == ["200 1", "403 0", "200 0"]


@pytest.mark.parametrize("header", ["Transfer-Encoding: chunked", "Expect: 100-continue", "X: y"])
async def test_an_upload(header: str, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(bytes(range(256)) * 8192)  # 2 MiB
    async with front(allow(PathPrefix="/up")) as f:
        assert await curl(f, "-T", str(body), "-H", header, "URL/up") == "ok"
        assert f.app.reached[0].body == body.read_bytes()


async def test_http_1_0() -> None:
    async with front(allow(PathPrefix="/")) as f:
        assert await curl(f, "--http1.0", "URL/x") == "ok"


async def test_http_2_is_not_spoken() -> None:
    async with front(allow(PathPrefix="/")) as f:
        with pytest.raises(subprocess.CalledProcessError):
            await curl(f, "--http2-prior-knowledge", "URL/x")
        assert await curl(f, "--http2", "URL/x") == "ok"  # the offer of h2c ends at the sidecar
        assert [r.header("upgrade") for r in f.app.reached] == [[]]
