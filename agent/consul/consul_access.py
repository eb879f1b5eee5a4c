"""From settings to a client of the Consul agent they name."""

from __future__ import annotations

from agent.base.exits import Exit, ExitCode
from agent.config.settings import Settings
from agent.consul.api import Consul
from agent.consul.connect import TokenSource, dialler, tls_context
from agent.consul.http import Client


def consul_of(settings: Settings, token: TokenSource) -> Consul:
    """Nothing is asked yet. Raises Exit for TLS files that cannot be used."""
    try:
        context = tls_context(settings)
    except OSError as error:
        text = f"the TLS files for {settings.http_addr} cannot be used: {error}"
        raise Exit(ExitCode.CONFIGURATION, text) from error
    address = settings.http_addr
    dial = dialler(address, context, settings.tls_server_name)
    host = "localhost" if address.socket is not None else str(address).partition("://")[2]
    scope = {"ns": settings.namespace, "partition": settings.partition}
    return Consul(
        Client(dial, host=host),
        token,
        scope={name: value for name, value in scope.items() if value is not None},
        http_auth=settings.http_auth,
    )
