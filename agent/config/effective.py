"""The effective registration: the service definition overridden by the settings, or the settings alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from agent.base.address import ANY_ADDRESS, Address, TcpAddress, UnixAddress
from agent.config.collisions import PUBLIC, Known, bind_of, without_collisions
from agent.config.opaque_config import Problem, ProblemReason
from agent.config.registration import Registration
from agent.config.settings import Origin, Rank, Settings
from upstreams.answers import TUNNEL_KEY

_FIELDS = {"listen": "public_bind", "service_addr": "local_app", "upstream": "upstreams"}

_ANY = frozenset({ANY_ADDRESS, "::"})  # registered without an address: Consul then answers with the node's


def overridden(registration: Registration, settings: Settings) -> Registration:
    """Return the registration with each field that the settings give replaced."""
    if settings.listen is not None:
        exposed = tuple(
            replace(one, bind=TcpAddress(settings.listen.host, one.bind.port)) for one in registration.exposed
        )
        registration = replace(registration, public_bind=settings.listen, exposed=exposed)
    if settings.service_addr is not None:
        exposed = tuple(replace(one, app=_at(settings.service_addr, one.app)) for one in registration.exposed)
        registration = replace(registration, local_app=settings.service_addr, exposed=exposed)
    if settings.upstream is not None:
        registration = replace(registration, upstreams=settings.upstream)
    return registration


def _at(app: Address, before: Address) -> Address:
    """Return where an exposed path is asked for: the port of before at the host of another app."""
    if isinstance(app, TcpAddress) and isinstance(before, TcpAddress):
        return TcpAddress(app.host, before.port)
    return app


def from_settings(settings: Settings) -> Registration:
    """Return the registration of `-service NAME`, which has no definition in Consul."""
    service = settings.service or ""
    return overridden(
        Registration(
            proxy_id=settings.register_id or f"{service}-proxy", service=service, service_id=service
        ),
        settings,
    )


def listening_at(registration: Registration, admin: Sequence[Address]) -> list[Address]:
    """Return every address that no other may share: those of the listeners, and the app's."""
    ours = (registration.public_bind, registration.local_app, *map(bind_of, registration.upstreams))
    paths = (address for one in registration.exposed for address in (one.bind, one.app))
    return [*admin, *dict.fromkeys(address for address in (*ours, *paths) if address is not None)]


def servable(
    registration: Registration, admin: Sequence[Address], known: Known, public: Address | None = None
) -> Registration:
    """Return the part of a registration that can be served, with a problem for each listener that collides.

    `public` is the address of the public listener where systemd has bound its socket.
    """
    found = without_collisions(
        public=None if registration.public_bind is None else public or registration.public_bind,
        app=registration.local_app,
        upstreams=registration.upstreams,
        exposed=registration.exposed,
        admin=admin,
        known=known,
    )
    return replace(
        registration,
        upstreams=found.upstreams,
        exposed=found.exposed,
        public_unserved=registration.public_bind is not None and not found.public,
        checked=found.check,
        problems=(*registration.problems, *found.problems),
    )


def deregistered(registration: Registration) -> Registration:
    """Return what is served once Consul does not know the proxy any more: no callers, no exposed path."""
    detail = "Consul does not know this proxy any more; no callers are accepted until it is registered again"
    problem = Problem(where=PUBLIC, reason=ProblemReason.DEREGISTERED, detail=detail)
    problems = (*registration.problems, problem)
    return replace(registration, public_unserved=True, exposed=(), problems=problems)


def unregistered(settings: Settings) -> Registration:
    """Return what the settings alone say, for when Consul's registration is not known."""
    return overridden(Registration(proxy_id="", service="", service_id=""), settings)


def origins(registration: Registration, settings: Settings) -> Mapping[str, tuple[str, Origin]]:
    """Return the settings that a definition can give, with value and origin, for /status."""
    definition = Origin(Rank.DEFINITION, registration.proxy_id)
    values: dict[str, tuple[str, Origin]] = {}
    for name, field in _FIELDS.items():
        value = getattr(registration, field)
        text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        given = getattr(settings, name) is not None
        values[name] = ("" if value is None else text, settings.origins[name] if given else definition)
    return values


def own_definition(registration: Registration, *, tunnels: bool = False) -> dict[str, object]:
    """Return the definition that `-register` registers: a proxy by itself, with a TTL check that we renew.

    `tunnels`: it offers tunnels (docs/tunnels.md).
    """
    assert registration.public_bind is not None  # the settings require -listen with -register
    proxy: dict[str, object] = {
        "DestinationServiceName": registration.service,
        "DestinationServiceID": registration.service_id,
    }
    if isinstance(registration.local_app, TcpAddress):
        proxy["LocalServiceAddress"] = registration.local_app.host
        proxy["LocalServicePort"] = registration.local_app.port
    elif isinstance(registration.local_app, UnixAddress):
        proxy["LocalServiceSocketPath"] = registration.local_app.path
    if tunnels:
        proxy["Config"] = {TUNNEL_KEY: True}
    return {
        "Kind": "connect-proxy",
        "ID": registration.proxy_id,
        "Name": f"{registration.service}-proxy",
        "Address": "" if registration.public_bind.host in _ANY else registration.public_bind.host,
        "Port": registration.public_bind.port,
        "Proxy": proxy,
        "Check": {"CheckID": check_id(registration), "Name": "sidecar", "TTL": "30s"},
    }


def check_id(registration: Registration) -> str:
    """Return the id of the TTL check of our own definition."""
    return f"{registration.proxy_id}-ttl"
