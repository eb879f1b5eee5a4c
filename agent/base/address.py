"""Where a socket is bound or dialled: a TCP address or the path of a unix socket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - Consul's meaning of a proxy without an address


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host, by address or name, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """The path of a unix socket."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address: TypeAlias = TcpAddress | UnixAddress
