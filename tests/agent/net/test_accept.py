"""The accept loop against scripted listening sockets: the errors of accept(2) one by one."""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import Callable

import pytest
import trio
import trio.lowlevel
import trio.testing

from agent.net import accept as listener_module
from agent.net.accept import BATCH, PACE, PAUSE, accept_all
from agent.net.admission import GRACE, Admission, Overflow, Slot
from tests.support.faults import NoFaults
from tests.support.socket_pairs import listener, tcp_pair


class Told(NoFaults):
    def __init__(self) -> None:
        self.overflows: list[Overflow] = []
        self.shortages: list[OSError] = []

    def overflowed(self, admission: Admission, reason: Overflow, /) -> None:
        self.overflows.append(reason)

    def exhausted(self, error: OSError, /) -> None:
        self.shortages.append(error)


class Scripted:
    """A listening socket whose accepts are told beforehand: an error, or None for a caller."""

    def __init__(self, *script: int | None) -> None:
        self.script = list(script)
        self.others: list[socket.socket] = []
        self.true_caller: socket.socket | None = None
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

    def poke(self) -> None:
        """Make it readable: a caller in truth, whom the script answers for."""
        self.true_caller = socket.create_connection(self._sock.getsockname())

    def close(self) -> None:
        self._sock.close()
        for other in (*self.others, self.true_caller):
            if other is not None:
                other.close()


async def accepted(
    scripted: Scripted,
    monkeypatch: pytest.MonkeyPatch,
    wanted: Callable[[Admission, Told], bool],
    admission: Admission | None = None,
) -> tuple[Admission, Told]:
    """Accept what is scripted, until it is as wanted."""
    admission, told = admission or Admission(), Told()

    async def always_ready(sock: object) -> None:
        await trio.lowlevel.checkpoint()
        if not scripted.script:
            await trio.sleep_forever()

    monkeypatch.setattr(listener_module.trio.lowlevel, "wait_readable", always_ready)  # type: ignore[attr-defined]

    async def handler(sock: socket.socket, _place: Slot) -> None:
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
    handler: Callable[[socket.socket, Slot], object],
    nursery: trio.Nursery,
    admission: Admission,
    told: Told,
) -> None:
    await accept_all(
        [scripted],  # type: ignore[list-item]
        handler,  # type: ignore[arg-type]
        purpose="tests",
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
            await _accept(scripted, lambda _sock, _place: None, nursery, Admission(), Told())
    scripted.close()
    assert "EBADF" in repr(_leaves(caught.value))


def _leaves(group: BaseException) -> list[BaseException]:
    if isinstance(group, BaseExceptionGroup):
        return [leaf for error in group.exceptions for leaf in _leaves(error)]
    return [group]


class Turns(trio.abc.Instrument):
    """Counts the scheduler's turns: in each, every task that can run does so once."""

    def __init__(self) -> None:
        self.now = 0

    def before_io_wait(self, timeout: float) -> None:
        self.now += 1


async def test_others_get_their_turn_between_batches() -> None:
    scripted, turns, accepted = Scripted(*[None] * (BATCH + 10)), Turns(), Counter[int]()
    accept = scripted.accept

    def noted() -> tuple[socket.socket, object]:
        found = accept()
        accepted[turns.now] += 1
        return found

    scripted.accept = noted  # type: ignore[method-assign]

    async def handler(sock: socket.socket, _place: Slot) -> None:
        sock.close()
        await trio.lowlevel.checkpoint()

    trio.lowlevel.add_instrument(turns)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_accept, scripted, handler, nursery, Admission(), Told())
        scripted.poke()
        while scripted.script:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    trio.lowlevel.remove_instrument(turns)
    assert list(accepted.values()) == [BATCH, 10]
    scripted.close()


async def test_handshakes_begin_in_the_order_of_arrival_a_few_in_each_turn() -> None:
    scripted = Scripted(*[None] * 3 * PACE)
    admission, begun, turns = Admission(), Counter[int](), Turns()
    order = list[object]()

    async def handler(sock: socket.socket, _place: Slot) -> None:
        begun[turns.now] += 1
        order.append(sock.getpeername())
        sock.close()
        await trio.lowlevel.checkpoint()

    trio.lowlevel.add_instrument(turns)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_accept, scripted, handler, nursery, admission, Told())
        scripted.poke()
        while len(order) < 3 * PACE:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    trio.lowlevel.remove_instrument(turns)
    assert list(begun.values()) == [PACE] * 3
    # Within one turn trio shuffles its tasks; from turn to turn the order holds.
    names = [other.getsockname() for other in scripted.others]
    for start in range(0, 3 * PACE, PACE):
        assert set(order[start : start + PACE]) == set(names[start : start + PACE])
    scripted.close()


async def test_who_was_admitted_is_served_though_the_listener_ends_first() -> None:
    served = []

    async def handler(sock: socket.socket, _place: Slot) -> None:
        served.append(sock)
        sock.close()
        await trio.lowlevel.checkpoint()

    scripted = Scripted(*[None] * 3 * PACE)
    admission = Admission()
    async with trio.open_nursery() as connections, trio.open_nursery() as loops:

        async def run() -> None:
            await accept_all(
                [scripted],  # type: ignore[list-item]
                handler,
                purpose="tests",
                connections=connections,
                admission=admission,
                events=Told(),
            )

        loops.start_soon(run)
        scripted.poke()
        while not admission.admitted:
            await trio.lowlevel.checkpoint()
        loops.cancel_scope.cancel()
    assert len(served) == admission.admitted == 3 * PACE
    assert (admission.live, admission.unsettled) == (0, 0)
    scripted.close()


async def test_sockets_are_handed_over_non_blocking_and_outlive_the_loop() -> None:
    """Draining ends the loop first; connections that are open stay open."""
    admission, released, got = Admission(), trio.Event(), []

    async def handler(sock: socket.socket, _place: Slot) -> None:
        got.append(sock.gettimeout())
        await released.wait()
        sock.close()

    with listener() as sock, listener() as second:
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as loops:

                async def run() -> None:
                    await accept_all(
                        [sock, second],
                        handler,
                        purpose="tests",
                        connections=connections,
                        admission=admission,
                        events=Told(),
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


async def test_want_of_descriptors_costs_a_silent_one_its_place(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    admission = Admission(None, 8, fair=True)
    silent = admission.enter("192.0.2.1")
    await trio.sleep(GRACE)
    await accepted(
        Scripted(errno.EMFILE, None), monkeypatch, lambda a, _: a.admitted == 2, admission=admission
    )
    assert silent.scope.cancel_called
