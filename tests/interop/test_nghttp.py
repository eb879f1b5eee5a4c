"""nghttp2 as the client of our tunnels: a proxy's CONNECT streams, and requests that are not CONNECT."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.interop.mesh import Mesh, Sidecar, until
from tests.interop.nghttp import Refused, connected, dialling, missing, proxy, run

pytestmark = pytest.mark.slow

CALLS, AT_ONCE = 200, 16
REQUESTS, CLIENTS, STREAMS = 10_000, 8, 100
BIG = bytes(range(97, 123)) * 100_000  # a to z
SNI = "tunnel-v1.nghttp-tunnels.default.dc1.internal.11111111.consul"


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    """Skip where one is missing: `make test` does without them, and CI installs them."""
    if absent := missing():
        pytest.skip(f"not on PATH: {', '.join(absent)}")


@pytest.fixture(scope="module")
def ours(mesh: Mesh) -> Iterator[Sidecar]:
    with mesh.sidecar("nghttp-tunnels", "dc1", [], "-tunnel", "auto") as running:
        yield running


@pytest.fixture
def plain(mesh: Mesh, ours: Sidecar) -> Iterator[int]:
    """A port where HTTP/2 in plain text is a tunnel to our sidecar."""
    who = mesh.holder("nghttp-caller", "dc2")
    with dialling(mesh.place("haproxy"), who, ours.port, SNI) as port:
        yield port


def call(port: int, data: bytes) -> bytes:
    """Send through a forward proxy, and read as much."""
    with connected(port) as sock, ThreadPoolExecutor(1) as pool:
        sent = pool.submit(sock.sendall, data)
        got = bytearray()
        while len(got) < len(data) and (part := sock.recv(1 << 20)):
            got += part
        sent.result(20)
    return bytes(got)


def inbound_tunnels(ours: Sidecar) -> list[dict[str, object]]:
    return [row for row in ours.status()["tunnels"] if row["direction"] == "inbound"]


def test_streams_of_nghttpx_carry_what_its_callers_send(mesh: Mesh, ours: Sidecar, plain: int) -> None:
    accepted = mesh.origin.accepted
    with proxy(mesh.place("nghttpx"), plain) as port, ThreadPoolExecutor(AT_ONCE) as pool:
        texts = [f"call {number}\n".encode() * 50 for number in range(CALLS)]
        assert list(pool.map(lambda text: call(port, text), texts)) == [text.upper() for text in texts]
        big = list(pool.map(lambda _: call(port, BIG), range(4)))
        assert all(one == BIG.upper() for one in big)
        tunnels = inbound_tunnels(ours)
        assert {row["peer"] for row in tunnels} == {mesh.holder("nghttp-caller", "dc2").uri}
        assert len(tunnels) <= 2  # one worker has one, and one more if it was slow to greet
    assert mesh.origin.accepted - accepted == CALLS + 4


def test_a_caller_of_nghttpx_is_told_why_it_is_denied(mesh: Mesh, ours: Sidecar) -> None:
    rule = "/v1/connect/intentions/exact?source=nghttp-denied&destination=nghttp-tunnels"
    assert mesh.api("dc1").put(rule, {"Action": "deny"}).status == 200
    who = mesh.holder("nghttp-denied", "dc2")
    with (
        dialling(mesh.place("haproxy"), who, ours.port, SNI) as plain,
        proxy(mesh.place("nghttpx"), plain) as port,
    ):
        heads: list[str] = []
        until(partial(_refused, port, heads), "the intention is known")
    (head,) = heads
    assert head.startswith("http/1.1 403 ")
    assert 'proxy-status: sidecar; error=http_request_denied; details="intention_deny"' in head


def _refused(port: int, heads: list[str]) -> bool:
    """Return whether a call is refused, and note the head of the answer."""
    try:
        with connected(port):
            return False
    except Refused as refused:
        heads.append(str(refused))
        return True


def test_a_get_of_nghttp_is_answered_that_it_is_not_connect(plain: int) -> None:
    printed = run("nghttp", "--verbose", f"http://127.0.0.1:{plain}/")
    assert ":status: 405" in printed
    assert 'proxy-status: sidecar; error=http_request_error; details="not_connect"' in printed
    assert "allow: CONNECT" in printed


def test_a_connect_with_a_path_ends_its_stream_alone(plain: int) -> None:
    """`nghttp` says `:scheme` and `:path` with every method; a CONNECT must not have them (RFC 9113 §8.5)."""
    urls = [f"http://127.0.0.1:{plain}/{number}" for number in range(2)]
    printed = run("nghttp", "--verbose", "--header=:method: CONNECT", *urls)
    resets = re.findall(r"recv RST_STREAM .*\n +\(error_code=(\w+)", printed)
    assert resets == ["PROTOCOL_ERROR"] * len(urls)
    assert "recv GOAWAY" not in printed


def test_many_requests_of_h2load_are_answered_and_the_next_caller_is_served(
    mesh: Mesh, ours: Sidecar, plain: int
) -> None:
    command = ["h2load", f"-n{REQUESTS}", f"-c{CLIENTS}", f"-m{STREAMS}", f"http://127.0.0.1:{plain}/"]
    printed = run(*command)
    assert f"{REQUESTS} done, 0 succeeded, {REQUESTS} failed, 0 errored, 0 timeout" in printed
    assert f"{REQUESTS} 4xx" in printed
    with proxy(mesh.place("nghttpx"), plain) as port:
        assert call(port, b"still here") == b"STILL HERE"
    assert ours.status()["counters"]["internal_errors"] == {}
    assert "[ERROR]" not in ours.log.read_text()
