"""How to reach the Consul agent: TCP, TLS or a unix socket, and the token to show it."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import trio

from agent.config.parsers import ConsulAddress
from agent.config.settings import Settings
from agent.consul.http import Dial

MAX_TOKEN = 4096  # bytes; a Consul secret is 36


def dialler(address: ConsulAddress, tls: ssl.SSLContext | None, server_name: str | None) -> Dial:
    """A function that connects to the agent and, where asked for, has shaken hands with it.

    It raises OSError (ssl.SSLError among them).
    """

    async def over_tcp() -> trio.abc.Stream:
        if address.socket is not None:
            return await trio.open_unix_socket(address.socket)
        return await trio.open_tcp_stream(address.host, address.port)

    async def over_tls() -> trio.abc.Stream:
        stream = await over_tcp()
        secured = trio.SSLStream(
            stream, context, server_hostname=server_name or address.host, https_compatible=True
        )
        try:
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
    """The TLS settings towards the agent, None for plain HTTP. Raises ssl.SSLError, OSError for bad files."""
    if not settings.http_addr.tls:
        return None
    own_authorities = settings.ca_file is not None or settings.ca_path is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if own_authorities:
        context.load_verify_locations(settings.ca_file, settings.ca_path)
    else:
        context.load_default_certs()
    if settings.client_cert is not None:
        context.load_cert_chain(settings.client_cert, settings.client_key)
    if not settings.http_ssl_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class TokenSource:
    """The ACL token: a file's trimmed text, read again when the file changes, else the given one.

    A file that was readable at start and is gone now leaves the last token in force; `complaint` says so.
    """

    def __init__(self, token: str | None, file: Path | None) -> None:
        self._given = token or ""
        self._file = file
        self._read = ""
        self._seen: tuple[int, int, int] | None = None
        self.on_change: Callable[[], None] = lambda: None
        self.complaint = ""

    def __repr__(self) -> str:
        return f"<TokenSource file={self._file}>"

    def current(self) -> str:
        """The token for the next request; empty for none."""
        if self._file is not None:
            self._look(self._file)
        return self._read or self._given

    def _look(self, file: Path) -> None:
        try:
            stat = file.stat()
            stamp = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if stamp == self._seen:
                return
            with file.open("rb") as opened:
                text = opened.read(MAX_TOKEN).decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not ASCII text"
            self.complaint = f"token file {file}: {why}"
            return
        changed = self._seen is not None and text != self._read
        self._seen, self._read, self.complaint = stamp, text, ""
        if changed:
            self.on_change()
