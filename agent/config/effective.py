"""Where this sidecar stands: the service definition with the settings laid over it, or the settings alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from agent.base.address import ANY_ADDRESS, Address, TcpAddress, UnixAddress
from agent.config.collisions import Known, bind_of, without_collisions
from agent.config.registration import Registration
from agent.config.settings import Origin, Rank, Settings

_FIELDS = {"listen": "public_bind", "service_addr": "local_app", "upstream": "upstreams"}

_ANY = frozenset({ANY_ADDRESS, "::"})  # not an address to be reached at: Consul then answers the node's


def laid_over(registration: Registration, settings: Settings) -> Registration:
    """What the settings say wins, one field at a time."""
    if settings.listen is not None:
        registration = replace(registration, public_bind=settings.listen)
    if settings.service_addr is not None:
        registration = replace(registration, local_app=settings.service_addr)
    if settings.upstream is not None:
        registration = replace(registration, upstreams=settings.upstream)
    return registration


def from_settings(settings: Settings) -> Registration:
    """The placement of `-service NAME`, which has no definition."""
    service = settings.service or ""
    return laid_over(
        Registration(
            proxy_id=settings.register_id or f"{service}-proxy", service=service, service_id=service
        ),
        settings,
    )


def listening_at(registration: Registration, admin: Sequence[Address]) -> list[Address]:
    """Every address that must not meet another: those of the listeners, and the app's."""
    ours = (registration.public_bind, registration.local_app, *map(bind_of, registration.upstreams))
    return [*admin, *(address for address in ours if address is not None)]


def settled(
    registration: Registration, admin: Sequence[Address], known: Known, public: Address | None = None
) -> Registration:
    """What of it can be served, and a problem for each listener that meets another or the app.

    `public` is where the public listener is, if that is not the registration's to say: a socket handed in.
    """
    found = without_collisions(
        public=None if registration.public_bind is None else public or registration.public_bind,
        app=registration.local_app,
        upstreams=registration.upstreams,
        admin=admin,
        known=known,
    )
    return replace(
        registration,
        upstreams=found.upstreams,
        public_unserved=registration.public_bind is not None and not found.public,
        checked=found.check,
        problems=(*registration.problems, *found.problems),
    )


def unregistered(settings: Settings) -> Registration:
    """What the settings alone say, where the registration is not known."""
    return laid_over(Registration(proxy_id="", service="", service_id=""), settings)


def origins(registration: Registration, settings: Settings) -> Mapping[str, tuple[str, Origin]]:
    """For status: the settings that a definition can give, as they are now, and who said so."""
    definition = Origin(Rank.DEFINITION, registration.proxy_id)
    values: dict[str, tuple[str, Origin]] = {}
    for name, field in _FIELDS.items():
        value = getattr(registration, field)
        text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        given = getattr(settings, name) is not None
        values[name] = ("" if value is None else text, settings.origins[name] if given else definition)
    return values


def own_definition(registration: Registration) -> dict[str, object]:
    """What `-register` registers: a stand-alone proxy with a check we keep alive ourselves."""
    assert registration.public_bind is not None  # the settings see to it
    proxy: dict[str, object] = {
        "DestinationServiceName": registration.service,
        "DestinationServiceID": registration.service_id,
    }
    if isinstance(registration.local_app, TcpAddress):
        proxy["LocalServiceAddress"] = registration.local_app.host
        proxy["LocalServicePort"] = registration.local_app.port
    elif isinstance(registration.local_app, UnixAddress):
        proxy["LocalServiceSocketPath"] = registration.local_app.path
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
    """The id of that check."""
    return f"{registration.proxy_id}-ttl"
