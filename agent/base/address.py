"""Where a socket is bound or dialled: a TCP address or the path of a unix socket."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - Consul's meaning of a proxy without an address


class TcpAddress(msgspec.Struct, frozen=True, tag=True):
    """A host, by address or name, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class UnixAddress(msgspec.Struct, frozen=True, tag=True):
    """The path of a unix socket."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address: TypeAlias = TcpAddress | UnixAddress
