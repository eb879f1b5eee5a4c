"""Exposed paths: what a caller without a certificate reaches, and everything that it does not."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import pytest
import trio
import trio.testing

from agent.base.address import TcpAddress
from agent.connections.ledger import Ledger
from agent.inbound.exposed import HEAD_SECONDS, SECONDS, Callers, ExposedService, serve_exposed
from agent.net.admission import Admission
from agent.net.dial import nothing
from tests.scenarios.http_app import Answer, AppSide, HttpApp, Reached, say_ok
from tests.scenarios.recorder import Recorder
from tests.support.socket_pairs import tcp_pair
from tests.support.tunnels import until

ASK = b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n"


@dataclass
class Bench:
    """One exposed path before an app that notes what reached it."""

    app: HttpApp
    service: ExposedService
    nursery: trio.Nursery
    told: Recorder = field(default_factory=Recorder)

    def call(self) -> socket.socket:
        """A caller's socket, served."""
        near, far = tcp_pair()
        slot = Admission(clock=trio.current_time).enter()
        self.nursery.start_soon(serve_exposed, far, slot, self.service)
        return near

    async def ask(self, request: bytes) -> bytes:
        """All that a caller gets for some bytes."""
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(self.call()))
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(request)
        got = b""
        async with stream:
            with contextlib.suppress(trio.BrokenResourceError):
                while part := await stream.receive_some():
                    got += part
        await trio.testing.wait_all_tasks_blocked(0.001)
        return got

    @property
    def counted(self) -> dict[str, int]:
        return dict(self.service.ledger.exposures())


@contextlib.asynccontextmanager
async def exposed(
    *, answer: Answer = say_ok, callers: tuple[str, ...] = ("host",), path: str = "/health"
) -> AsyncIterator[Bench]:
    app, told = HttpApp(answer), Recorder()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, app, 0, host="127.0.0.1"))
        service = ExposedService(
            path=path,
            app=TcpAddress("127.0.0.1", listeners[0].socket.getsockname()[1]),
            callers=Callers(callers),
            ledger=Ledger(lambda: datetime.now(UTC), told),
            connect_timeout=1.0,
            shun=nothing,
        )
        yield Bench(app, service, nursery, told)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("target", ["/health", "/health?verbose&x=%2F..", "/health?"])
async def test_the_path_is_answered_once_and_the_connection_ends(target: str) -> None:
    async with exposed() as bench:
        got = await bench.ask(f"GET {target} HTTP/1.1\r\nHost: h\r\nAccept: */*\r\n\r\n".encode())
        assert got == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
        (reached,) = bench.app.reached
        assert (reached.method, reached.target) == ("GET", target)
        assert reached.headers == [("Host", "h"), ("Accept", "*/*")]
        assert bench.counted == {"exposed_answered": 1}
        assert bench.app.malformed == []
        assert bench.told.exposed_ones == []


async def test_head_gets_no_body() -> None:
    async def head(side: AppSide, _asked: Reached) -> None:
        await side.say("HTTP/1.1 200 OK", "Content-Length: 2")

    async with exposed(answer=head) as bench:
        got = await bench.ask(b"HEAD /health HTTP/1.1\r\nHost: h\r\n\r\n")
        assert got == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"


def line(text: str, *headers: str) -> bytes:
    return "\r\n".join((f"{text} HTTP/1.1", "Host: h", *headers, "", "")).encode("latin-1")


NOT_THE_PATH = [
    "/",
    "/admin",
    "/health/",
    "/health/x",
    "/healthy",
    "/HEALTH",
    "//health",
    "/./health",
    "/x/../health",
]
NOT_THE_PATH += [
    "/%68ealth",
    "/health%3Fx",
    "/health;x",
    "http://h/health",
    "http://h/admin",
    "/health%20",
    "/%2568ealth",
]
REFUSED = [
    *((line(f"GET {target}"), "exposed_path") for target in NOT_THE_PATH[:-1]),
    (line("GET /%2568ealth"), "double_encoding"),
    (line("GET /health/../../x"), "path_above_root"),
    (line("GET /%2e%2e/health"), "path_above_root"),
    (line("GET /health%2f"), "encoded_slash"),
    (line("GET /health#x"), "fragment_in_target"),
    (line("GET /health\\x"), "backslash_in_path"),
    (line("GET http://other/health"), "host_mismatch"),
    (line("GET health"), "target_form"),
    (line("OPTIONS *"), "exposed_path"),
    (line("POST /health"), "exposed_method"),
    (line("OPTIONS /health"), "exposed_method"),
    (line("get /health"), "exposed_method"),
    (line("CONNECT /health"), "connect_method"),
    (line("GET /health", "Content-Length: 3") + b"abc", "exposed_body"),
    (line("GET /health", "Transfer-Encoding: chunked") + b"0\r\n\r\n", "exposed_body"),
    (line("GET /health", "Content-Length: 0", "Transfer-Encoding: chunked"), "length_and_transfer_encoding"),
    (line("GET /health", "Connection: Upgrade", "Upgrade: websocket"), "exposed_upgrade"),
    (line("GET /health", "X-HTTP-Method-Override: DELETE"), "exposed_override"),
    (line("GET /health", "x-original-url: /admin"), "exposed_override"),
    (line("GET /health", "X_Original_URL: /admin"), "field_name"),
    (line("GET /health", "X.Role: admin"), "field_name"),
    (line("GET /health", "A : b"), "space_before_colon"),
    (line("GET /health", "Host: two"), "bad_host"),
    (b"GET /health HTTP/1.1\nHost: h\n\n", "bare_cr_or_lf"),
    (b"GET /health HTTP/2.0\r\nHost: h\r\n\r\n", "http_version"),
    (b"\x16\x03\x01\x00\xa5", "malformed_request_line"),
    (b"GET /health HTTP/1.1\r\nHost: h\r\nX: " + b"y" * 40_000, "head_too_large"),
]


@pytest.mark.parametrize(("request_", "reason"), REFUSED, ids=[repr(one[0][:60]) for one in REFUSED])
async def test_nothing_else_reaches_the_app(request_: bytes, reason: str) -> None:
    async with exposed() as bench:
        got = await bench.ask(request_)
        assert got.startswith((b"HTTP/1.1 4", b"HTTP/1.1 505 "))
        assert got.endswith(f"({reason})\n".encode())
        assert bench.app.connections == 0
        assert bench.counted == {reason: 1}
        (told,) = bench.told.exposed_ones
        assert told.reason.value == reason


async def test_what_follows_the_request_is_never_another_one() -> None:
    async with exposed() as bench:
        got = await bench.ask(ASK + line("GET /admin") + line("POST /health", "Content-Length: 1") + b"x")
        assert got.endswith(b"\r\n\r\nok")
        assert [one.target for one in bench.app.reached] == ["/health"]
        assert bench.counted == {"exposed_answered": 1}


async def test_a_client_certificate_is_not_claimed() -> None:
    async with exposed() as bench:
        await bench.ask(line("GET /health", "X-Forwarded-Client-Cert: URI=spiffe://x", "Connection: close"))
        assert [name for name, _ in bench.app.reached[0].headers] == ["Host"]


@pytest.mark.parametrize("callers", [(), ("10.0.0.0/8",), ("::/0",)])
async def test_a_caller_that_is_not_named_is_answered_before_it_speaks(callers: tuple[str, ...]) -> None:
    async with exposed(callers=callers) as bench:
        got = await bench.ask(b"")
        assert got.startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert bench.counted == {"exposed_source": 1}
        assert bench.app.connections == 0


CALLERS = [
    (("host",), "127.0.0.9", "127.0.0.1", True),
    (("host",), "10.0.0.7", "10.0.0.7", True),  # of this machine, to an address of it
    (("host",), "10.0.0.8", "10.0.0.7", False),
    (("host",), "::1", "::1", True),
    (("host",), "::ffff:127.0.0.1", "::ffff:127.0.0.1", True),
    (("host",), "fe80::1%eth0", "fe80::1%eth0", True),
    (("10.0.0.0/8",), "10.9.0.1", "10.0.0.7", True),
    (("10.0.0.0/8",), "::ffff:10.9.0.1", "::ffff:10.0.0.7", True),
    (("10.0.0.0/8",), "127.0.0.1", "127.0.0.1", False),
    (("fd00::/8", "10.1.1.1/32"), "fd00::5", "fd00::1", True),
    (("fd00::/8", "10.1.1.1/32"), "10.1.1.2", "10.0.0.7", False),
    ((), "127.0.0.1", "127.0.0.1", False),
]


@pytest.mark.parametrize(("named", "there", "here", "admitted"), CALLERS)
def test_who_may_ask(named: tuple[str, ...], there: str, here: str, admitted: bool) -> None:
    assert Callers(named).admit((there, 5), (here, 6)) is admitted


def test_a_unix_socket_is_nobodys_address() -> None:
    assert not Callers(("host", "0.0.0.0/0", "::/0")).admit("", "")


async def silent(_side: AppSide, _asked: Reached) -> None:
    await trio.sleep_forever()


async def hang_up(_side: AppSide, _asked: Reached) -> None:
    raise trio.EndOfChannel


async def half(side: AppSide, _asked: Reached) -> None:
    await side.say("HTTP/1.1 200 OK", "Content-Length: 100", body=b"half")
    raise trio.EndOfChannel


async def test_an_app_that_gives_no_answer_is_502() -> None:
    async with exposed(answer=hang_up) as bench:
        assert (await bench.ask(ASK)).startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
        assert bench.counted == {"app_closed": 1}


async def test_an_app_that_is_down_is_503() -> None:
    async with exposed() as bench:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        bench.service = ExposedService(
            path="/health",
            app=TcpAddress("127.0.0.1", port),
            callers=bench.service.callers,
            ledger=bench.service.ledger,
            connect_timeout=1.0,
            shun=nothing,
        )
        assert (await bench.ask(ASK)).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert bench.counted == {"connect_refused": 1}


async def to_the_end(stream: trio.SocketStream) -> None:
    while await stream.receive_some():
        pass


async def test_an_answer_cut_short_is_no_whole_one() -> None:
    async with exposed(answer=half) as bench:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(bench.call()))
        await stream.send_all(ASK)
        async with stream:
            with pytest.raises(trio.BrokenResourceError):
                await to_the_end(stream)
        assert bench.counted == {"app_closed": 1}


async def forever(side: AppSide, _asked: Reached) -> None:
    await side.say("HTTP/1.1 200 OK", "Content-Length: 100000000")
    while True:
        await side.stream.send_all(bytes(65536))


async def test_a_caller_that_leaves_is_counted_as_that() -> None:
    async with exposed(answer=forever) as bench:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(bench.call()))
        await stream.send_all(ASK)
        assert await stream.receive_some()
        await stream.aclose()
        await until(lambda: bench.counted != {})
        assert bench.counted == {"exposed_caller_left": 1}
        bench.call().close()
        await until(lambda: bench.counted == {"exposed_caller_left": 2})


async def late(bench: Bench, request: bytes, seconds: float, clock: trio.testing.MockClock) -> bytes:
    """What a caller has got `seconds` after it sent these bytes."""
    near = bench.call()
    near.send(request)
    await trio.testing.wait_all_tasks_blocked(0.02)
    clock.jump(seconds)
    await trio.testing.wait_all_tasks_blocked(0.02)
    with near, contextlib.suppress(ConnectionResetError):
        return near.recv(4096)
    return b"reset"


async def test_a_head_must_come_in_time(mock_clock: trio.testing.MockClock) -> None:
    async with exposed() as bench:
        got = await late(bench, b"GET /health HTTP/1.1\r\n", HEAD_SECONDS + 0.1, mock_clock)
        assert got.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert bench.app.connections == 0


async def test_a_connection_has_its_time(mock_clock: trio.testing.MockClock) -> None:
    async with exposed(answer=silent) as bench:
        assert await late(bench, ASK, SECONDS + 0.1, mock_clock) == b"reset"
        assert bench.counted == {"exposed_timeout": 1}


async def test_one_that_gives_way_is_cut_and_one_that_is_answered_keeps_its_slot() -> None:
    async with exposed(answer=silent) as bench:
        admission = Admission(2, 1, fair=True, grace=0.0, own_grace=0.0)
        near, far = tcp_pair()
        bench.nursery.start_soon(serve_exposed, far, admission.enter(), bench.service)
        near.send(ASK)
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert admission.unsettled == 0
        assert admission.obstacle("x") is None
        idle, other = tcp_pair()
        bench.nursery.start_soon(serve_exposed, other, admission.enter(), bench.service)
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert admission.obstacle("y") is None
        assert admission.displaced.total() == 1
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert bench.counted == {"exposed_timeout": 1}
        near.close()
        idle.close()
