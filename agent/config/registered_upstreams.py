"""Reads the upstreams of a registration: those that are served, and a named problem for each other one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import msgspec

from agent.config.opaque_config import ConfigReader, Problem, ProblemReason, unknown, unknown_keys
from agent.config.upstream_config import configured, not_honoured
from certs.spiffe import DEFAULT
from upstreams.spec import (
    LOOPBACK,
    Bind,
    Destination,
    LocalBind,
    MeshGatewayMode,
    QueryDestination,
    ServiceDestination,
    SocketBind,
    Upstream,
    first_of_each_bind,
    without_brackets,
)


class MeshGatewayAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    """The `MeshGateway` of a proxy or an upstream."""

    mode: str = ""


class UpstreamAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    """One entry of `Proxy.Upstreams`."""

    destination_type: str = ""
    destination_name: str = ""
    destination_namespace: str = ""
    destination_partition: str = ""
    destination_peer: str = ""
    destination_port: str = ""  # of Consul 2: one of a service's named ports
    datacenter: str = ""
    local_bind_address: str = ""
    local_bind_port: int = 0
    local_bind_socket_path: str = ""
    local_bind_socket_mode: str = ""
    config: dict[str, object] | None = None
    mesh_gateway: MeshGatewayAnswer | None = None
    centrally_configured: bool = False


_FIELDS = frozenset(UpstreamAnswer.__struct_encode_fields__) | {"IngressHosts"}  # the last of gateways alone


class _Unserved(Exception):
    """Why one upstream is not served."""

    def __init__(self, reason: ProblemReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def read_upstreams(
    answers: Sequence[UpstreamAnswer],
    default_mode: MeshGatewayMode = MeshGatewayMode.UNSET,
    loopback: str = LOOPBACK,
) -> tuple[tuple[Upstream, ...], list[Problem]]:
    """Return every upstream with a bind of its own (the first of those that share one), and the problems.

    `default_mode` is the proxy's mesh gateway mode, used for upstreams that name none; `loopback` is the
    address of those without a bind address.
    """
    problems: list[Problem] = []
    readable: list[Upstream] = []
    for number, answer in enumerate(answers):
        if answer.centrally_configured:
            continue  # defaults for upstreams without a bind, for transparent proxies
        where = f"Upstreams[{number}]"
        try:
            upstream = _upstream(answer, default_mode, loopback)
            config = ConfigReader(where=f"{where}.Config", config=answer.config or {}, problems=problems)
            readable.append(configured(upstream, config))
        except _Unserved as fault:
            label = f"{where} ({answer.destination_name})"
            problems.append(Problem(where=label, reason=fault.reason, detail=fault.detail))
    served, late = first_of_each_bind(readable)
    for upstream in late:
        detail = "an earlier upstream has this bind; give it a port of its own"
        problems.append(Problem(where=str(upstream), reason=ProblemReason.DUPLICATE_BIND, detail=detail))
    return served, problems


def differences(answers: Sequence[Mapping[str, object]]) -> Iterator[Problem]:
    """Yield the keys that are not honoured, each once, and together those that the same upstreams have.

    A central configuration gives its keys to every upstream.
    """
    having: dict[tuple[str, str], list[int]] = {}
    for number, answer in enumerate(answers):
        if not answer.get("CentrallyConfigured"):  # see read_upstreams
            for one in _not_honoured(answer):
                having.setdefault(one, []).append(number)
    together: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for (place, key), numbers in having.items():
        together.setdefault((place, tuple(numbers)), []).append(key)
    for (place, those), keys in together.items():
        others = f"; the same holds for {len(those) - 1} more" if those[1:] else ""
        for problem in unknown(f"Upstreams[{those[0]}]{place}", keys):
            yield replace(problem, detail=problem.detail + others)


def _not_honoured(answer: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield the place in the entry of one upstream, and the key."""
    yield from (("", key) for key in unknown_keys(answer, _FIELDS))
    gateways = answer.get("MeshGateway")
    if isinstance(gateways, Mapping):
        known = MeshGatewayAnswer.__struct_encode_fields__
        yield from ((".MeshGateway", key) for key in unknown_keys(gateways, known))
    config = answer.get("Config")
    if isinstance(config, Mapping):
        yield from ((".Config", key) for key in not_honoured(config))


def gateway_mode(answer: MeshGatewayAnswer | None) -> MeshGatewayMode:
    """Return the mesh gateway mode; an unknown one counts as unset."""
    try:
        return MeshGatewayMode(answer.mode if answer else "")
    except ValueError:
        return MeshGatewayMode.UNSET


def _upstream(answer: UpstreamAnswer, default_mode: MeshGatewayMode, loopback: str) -> Upstream:
    _refuse_elsewhere(answer)
    mode = gateway_mode(answer.mesh_gateway) or default_mode
    return Upstream(destination=_destination(answer), bind=_bind(answer, loopback), mesh_gateway=mode)


def _refuse_elsewhere(answer: UpstreamAnswer) -> None:
    if answer.destination_port:
        detail = f"DestinationPort {answer.destination_port!r}: named ports are not reached here"
        raise _Unserved(ProblemReason.NAMED_PORT, detail)
    if answer.destination_peer:
        raise _Unserved(ProblemReason.PEERED, f"cluster peer {answer.destination_peer!r} cannot be reached")
    if answer.destination_namespace not in {"", DEFAULT}:
        raise _Unserved(
            ProblemReason.OTHER_NAMESPACE,
            f"namespace {answer.destination_namespace!r}; only the default one is served",
        )
    if answer.destination_partition not in {"", DEFAULT}:
        raise _Unserved(
            ProblemReason.OTHER_PARTITION,
            f"partition {answer.destination_partition!r}; only the default one is served",
        )


def _destination(answer: UpstreamAnswer) -> Destination:
    if not answer.destination_name:
        raise _Unserved(ProblemReason.NO_NAME, "DestinationName is empty")
    datacenter = answer.datacenter or None
    match answer.destination_type:
        case "" | "service":
            return ServiceDestination(answer.destination_name, datacenter)
        case "prepared_query":
            return QueryDestination(answer.destination_name, datacenter)
        case other:
            detail = f"DestinationType {other!r} is neither service nor prepared_query"
            raise _Unserved(ProblemReason.UNKNOWN_TYPE, detail)


def _bind(answer: UpstreamAnswer, loopback: str) -> Bind:
    if answer.local_bind_socket_path:
        return SocketBind(answer.local_bind_socket_path, _socket_mode(answer.local_bind_socket_mode))
    port = answer.local_bind_port
    if not port:
        detail = "neither LocalBindPort nor LocalBindSocketPath is set"
        raise _Unserved(ProblemReason.NO_BIND, detail)
    if not 1 <= port <= 65535:
        raise _Unserved(ProblemReason.BAD_BIND, f"LocalBindPort {port} is not a port")
    return LocalBind(without_brackets(answer.local_bind_address) or loopback, port)


def _socket_mode(text: str) -> int | None:
    """Read octal digits. Raises _Unserved for others: a guessed mode could open the socket too widely."""
    if not text:
        return None
    if not set(text) <= set("01234567") or int(text, 8) > 0o777:
        detail = f"LocalBindSocketMode {text!r} is not an octal mode such as 0600"
        raise _Unserved(ProblemReason.BAD_BIND, detail)
    return int(text, 8)
