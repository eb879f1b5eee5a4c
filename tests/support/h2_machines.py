"""Two ends of HTTP/2 in memory: what is heard on each, and bytes that travel in any pieces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from agent.h2.connection import H2Connection
from agent.h2.faults import ErrorCode
from agent.h2.frames import PREFACE, settings
from agent.h2.requests import Request
from agent.h2.stream import Stream


@dataclass(slots=True)
class Owner:
    """Writes down what a stream brings; reads at once unless `slow`."""

    machine: H2Connection
    stream: Stream | None = None
    slow: bool = False
    got: bytearray = field(default_factory=bytearray)
    held: int = 0
    status: int | None = None
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    ended: bool = False
    reset: int | None = None
    detail: str = ""
    rooms: int = 0

    def on_response(self, status: int, fields: list[tuple[bytes, bytes]]) -> None:
        self.status, self.fields = status, fields

    def on_data(self, data: bytes | memoryview) -> None:
        self.got += data
        self.held += len(data)
        if not self.slow:
            self.read()

    def read(self) -> None:
        """Let go of what is held."""
        held, self.held = self.held, 0
        assert self.stream is not None
        self.machine.consumed(self.stream, held)

    def on_end(self) -> None:
        self.ended = True

    def on_reset(self, code: int, detail: str) -> None:
        self.reset, self.detail = code, detail

    def on_room(self) -> None:
        self.rooms += 1


class Side:
    """A machine with a handler that accepts every CONNECT, unless `refusal` says what to answer instead."""

    def __init__(self, *, client: bool, most_streams: int = 100) -> None:
        self.now = 0.0
        self.owners: dict[int, Owner] = {}
        self.requests: list[Request] = []
        self.refusal: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self.slow = False
        self.goaways: list[tuple[int, str]] = []
        self.pongs = 0
        self.greetings = 0
        self.rooms = 0
        self.machine = H2Connection(self, lambda: self.now, client=client, most_streams=most_streams)

    def on_request(self, stream: Stream, request: Request) -> None:
        self.requests.append(request)
        if self.refusal is not None:
            self.machine.refuse(stream, *self.refusal)
            return
        stream.owner = self.owners[stream.id] = Owner(self.machine, stream, slow=self.slow)
        self.machine.accept(stream)

    def connect(self, authority: bytes = b"db") -> Owner:
        """A stream of a client, and what it hears."""
        owner = Owner(self.machine, slow=self.slow)
        owner.stream = self.machine.connect(authority, owner)
        self.owners[owner.stream.id] = owner
        return owner

    def on_settled(self) -> None:
        self.greetings += 1

    def on_goaway(self, code: int, detail: str) -> None:
        self.goaways.append((code, detail))

    def on_pong(self) -> None:
        self.pongs += 1

    def on_room(self) -> None:
        self.rooms += 1


def client() -> Side:
    return Side(client=True)


def server(most_streams: int = 100) -> Side:
    return Side(client=False, most_streams=most_streams)


def greeted() -> Side:
    """A server that has had the preface and empty settings; its own greeting is out of the way."""
    side = server()
    side.machine.receive(PREFACE + settings({}))
    side.machine.take()
    return side


def whole(data: bytes) -> list[bytes]:
    return [data] if data else []


def exchange(one: Side, other: Side, cut: Callable[[bytes], list[bytes]] = whole) -> None:
    """Carry bytes to and fro until both are silent; `cut` says in which pieces they arrive."""
    while one.machine.out or other.machine.out:
        for here, there in ((one, other), (other, one)):
            for piece in cut(here.machine.take()):
                there.machine.receive(piece)


def pair() -> tuple[Side, Side]:
    """A client and a server that have greeted each other."""
    one, other = client(), server()
    exchange(one, other)
    return one, other


def pour(side: Side, stream: Stream, data: bytes) -> bytes:
    """Send what there is room for; return the rest."""
    size = side.machine.room(stream)
    if size and data:
        side.machine.send(stream, data[:size])
        return data[size:]
    return data


REFUSED = ErrorCode.REFUSED_STREAM
