"""The accept loop against scripted listening sockets: the errors of accept(2) one by one."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

import pytest
import trio
import trio.testing

from agent import listener as listener_module
from agent.listener import BATCH, PAUSE, Admission, accept_all
from tests.agent.wires import listener, tcp_pair


class Told:
    def __init__(self) -> None:
        self.overflows: list[Admission] = []
        self.shortages: list[OSError] = []

    def overflowed(self, admission: Admission, /) -> None:
        self.overflows.append(admission)

    def exhausted(self, error: OSError, /) -> None:
        self.shortages.append(error)


class Scripted:
    """A listening socket whose accepts are told beforehand: an error, or None for a caller."""

    def __init__(self, *script: int | None) -> None:
        self.script = list(script)
        self.others: list[socket.socket] = []
        self.left_at_rest: list[int] = []  # how much of the script was left when the loop gave way
        self._sock = listener()

    def fileno(self) -> int:
        return self._sock.fileno()

    def accept(self) -> tuple[socket.socket, object]:
        if not self.script:
            raise BlockingIOError
        code = self.script.pop(0)
        if code is not None:
            raise OSError(code, errno.errorcode[code])
        near, far = tcp_pair()
        self.others.append(far)
        return near, None

    def close(self) -> None:
        self._sock.close()
        for other in self.others:
            other.close()


async def accepted(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch, wanted: Callable[[Admission, Told], bool]
) -> tuple[Admission, Told]:
    """Accept what is scripted, until it is as wanted."""
    admission, told = Admission(), Told()

    async def always_ready(sock: object) -> None:
        scripted.left_at_rest.append(len(scripted.script))
        await trio.lowlevel.checkpoint()
        if not scripted.script:
            await trio.sleep_forever()

    monkeypatch.setattr(listener_module.trio.lowlevel, "wait_readable", always_ready)  # type: ignore[attr-defined]

    async def handler(sock: socket.socket) -> None:
        await trio.lowlevel.checkpoint()
        sock.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_accept, scripted, handler, nursery, admission, told)
        while not wanted(admission, told):  # noqa: ASYNC110 - a test looks
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    scripted.close()
    return admission, told


async def _accept(
    scripted: Scripted,
    handler: Callable[[socket.socket], object],
    nursery: trio.Nursery,
    admission: Admission,
    told: Told,
) -> None:
    await accept_all(
        [scripted],  # type: ignore[list-item]
        handler,  # type: ignore[arg-type]
        connections=nursery,
        admission=admission,
        events=told,
    )


@pytest.mark.parametrize(
    "code", [errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.EHOSTUNREACH]
)
async def test_a_caller_that_is_gone_does_not_stop_the_next(
    code: int, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    _, told = await accepted(Scripted(code, None), monkeypatch, lambda a, _: a.admitted == 1)
    assert told.shortages == []
    assert trio.current_time() < PAUSE


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_want_of_resources_is_a_pause_told_once(
    code: int, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    script = Scripted(code, code, code, None, code, None)
    _, told = await accepted(script, monkeypatch, lambda a, _: a.admitted == 2)
    assert [error.errno for error in told.shortages] == [code, code]  # told again after it had gone well
    assert trio.current_time() >= 4 * PAUSE


async def test_an_error_of_the_listener_itself_is_raised() -> None:
    scripted = Scripted(errno.EBADF)
    with socket.create_connection(scripted._sock.getsockname()), pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            await _accept(scripted, lambda _: None, nursery, Admission(), Told())
    scripted.close()
    assert "EBADF" in repr(_leaves(caught.value))


def _leaves(group: BaseException) -> list[BaseException]:
    if isinstance(group, BaseExceptionGroup):
        return [leaf for error in group.exceptions for leaf in _leaves(error)]
    return [group]


async def test_others_get_their_turn_between_batches(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    scripted = Scripted(*[None] * (BATCH + 10))
    await accepted(scripted, monkeypatch, lambda a, _: a.admitted == BATCH + 10)
    assert scripted.left_at_rest[:2] == [BATCH + 10, 10]


async def test_sockets_are_handed_over_non_blocking_and_outlive_the_loop() -> None:
    """Draining ends the loop first; whoever is in stays in."""
    admission, released, got = Admission(), trio.Event(), []

    async def handler(sock: socket.socket) -> None:
        got.append(sock.gettimeout())
        await released.wait()
        sock.close()

    with listener() as sock, listener() as second:
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as loops:

                async def run() -> None:
                    await accept_all(
                        [sock, second], handler, connections=connections, admission=admission, events=Told()
                    )

                loops.start_soon(run)
                callers = [socket.create_connection(s.getsockname()) for s in (sock, second)]
                while admission.live < 2:  # noqa: ASYNC110 - a test looks
                    await trio.sleep(0.001)
                loops.cancel_scope.cancel()
            assert admission.live == 2
            assert repr(admission) == "<Admission live=2 limit=None overflow=0>"
            released.set()
    assert got == [0.0, 0.0]
    assert (admission.live, admission.most, admission.admitted) == (0, 2, 2)
    for caller in callers:
        caller.close()
