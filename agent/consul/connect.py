"""Connects to the Consul agent by TCP, TLS or a unix socket, with the token for it."""

from __future__ import annotations

import ssl
from pathlib import Path

import trio

from agent.base.exits import NotYet
from agent.config.parsers import ConsulAddress
from agent.config.settings import Settings
from agent.consul.api import Consul
from agent.consul.http import MAX_IDLE, Client, Dial
from agent.consul.token import TokenSource


def dialler(address: ConsulAddress, tls: ssl.SSLContext | None, server_name: str | None) -> Dial:
    """Return a function that connects to the agent, with a TLS handshake where `tls` is given.

    The function raises OSError (ssl.SSLError among them).
    """

    async def over_tcp() -> trio.abc.Stream:
        if address.socket is not None:
            return await trio.open_unix_socket(address.socket)
        return await trio.open_tcp_stream(address.host, address.port)

    async def over_tls() -> trio.abc.Stream:
        stream = await over_tcp()
        try:
            secured = trio.SSLStream(
                stream, context, server_hostname=server_name or address.host, https_compatible=True
            )
            await secured.do_handshake()
        except trio.BrokenResourceError as error:
            await trio.aclose_forcefully(stream)
            raise error.__cause__ if isinstance(error.__cause__, OSError) else OSError(str(error)) from error
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return secured

    if tls is None:
        return over_tcp
    context = tls
    return over_tls


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Return the TLS context for the agent; None for plain HTTP.

    Raises ssl.SSLError, OSError for bad files.
    """
    if not settings.http_addr.tls:
        return None
    own_authorities = settings.ca_file is not None or settings.ca_path is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if own_authorities:
        context.load_verify_locations(settings.ca_file, settings.ca_path)
        for path in _authority_files(settings.ca_path):
            _trust(context, path)
    else:
        context.load_default_certs()
    if settings.client_cert is not None:
        # Without a password here OpenSSL would prompt for one on the terminal and wait.
        context.load_cert_chain(settings.client_cert, settings.client_key, password=lambda: "")
    if not settings.http_ssl_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _authority_files(directory: Path | None) -> list[Path]:
    """Return the certificate files below a directory, as Consul's CLI reads them.

    OpenSSL itself would look only for names that are the hash of a subject.
    """
    if directory is None:
        return []
    found = (path for path in directory.rglob("*") if path.suffix in (".pem", ".crt", ".cer"))
    return sorted(path for path in found if path.is_file())


def _trust(context: ssl.SSLContext, path: Path) -> None:
    """Trust the certificates of a file that has any. Raises OSError, which names the file."""
    text = path.read_bytes()
    if b"CERTIFICATE-----" not in text:
        return
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise OSError(f"{path}: {error}") from error


def consul_of(settings: Settings, token: TokenSource) -> Consul:
    """Return the client of the agent; it sends nothing yet. Raises NotYet for unusable TLS files."""
    try:
        context = tls_context(settings)
    except OSError as error:
        text = f"the TLS files for {settings.http_addr} cannot be used: {error}"
        raise NotYet(text) from error
    address = settings.http_addr
    dial = dialler(address, context, settings.tls_server_name)
    host = "localhost" if address.socket is not None else str(address).partition("://")[2]
    scope = {"ns": settings.namespace, "partition": settings.partition}
    return Consul(
        Client(dial, host=host, kept=settings.consul_connections or MAX_IDLE),
        token,
        scope={name: value for name, value in scope.items() if value is not None},
        http_auth=settings.http_auth,
    )
