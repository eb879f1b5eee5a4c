"""Reaching the Consul agent over real loopback sockets: TCP, unix, TLS both ways."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from agent.base.exits import Exit
from agent.config.parsers import ConsulAddress
from agent.config.settings import Settings, resolve
from agent.consul.connect import consul_of, dialler, tls_context
from agent.consul.http import Client, Request, RequestFailed, RequestFailure
from agent.consul.token import TokenSource
from tests.certs.authority import Key, key_pem, new_key, pem

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


def settings(**flags: str) -> Settings:
    given = {name.replace("_", "-"): [value] for name, value in {"sidecar_for": "web", **flags}.items()}
    resolution = resolve(given, {})
    assert resolution.settings is not None, resolution.mistakes
    return resolution.settings


class Files:
    """An authority and certificates it made, on disk as an operator has them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._key = new_key()
        self._authority = self._certificate("authority", self._key, names=(), ca=True)
        self.ca = self._write("ca.pem", pem(self._authority))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Certificate and key files of that DNS name."""
        key = new_key()
        certificate = self._certificate(name, key, names=(name,), ca=False)
        return self._write(f"{name}.pem", pem(certificate)), self._write(f"{name}.key", key_pem(key))

    def _write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text)
        return path

    def _certificate(self, name: str, key: Key, *, names: tuple[str, ...], ca: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(minutes=1)).not_valid_after(
            now + timedelta(hours=1)
        )
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        if names:
            alternative = x509.SubjectAlternativeName([x509.DNSName(one) for one in names])
            builder = builder.add_extension(alternative, critical=False)
        return builder.sign(self._key, hashes.SHA256())


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@asynccontextmanager
async def serving(context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server on loopback that answers every request; its port."""

    async def handle(stream: trio.abc.Stream) -> None:
        served = stream if context is None else trio.SSLStream(stream, context, server_side=True)
        try:
            await served.receive_some(65536)
            await served.send_all(ANSWER)
        except trio.BrokenResourceError:
            pass  # a refused handshake
        finally:
            await trio.aclose_forcefully(served)

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def server_context(files: Files, *, clients: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files.issue("server.dc1.consul"))
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(files.ca)
    return context


async def ask(told: Settings, port: int) -> bytes:
    address = ConsulAddress(host="127.0.0.1", port=port, tls=told.http_addr.tls)
    client = Client(dialler(address, tls_context(told), told.tls_server_name), host="consul")
    response = await client.exchange(Request(method="GET", target="/"), 5)
    await client.aclose()
    return response.body


async def test_over_tcp() -> None:
    async with serving() as port:
        assert await ask(settings(), port) == b"ok"


async def test_over_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "consul.sock"
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(str(path))
    sock.listen()
    async with trio.open_nursery() as nursery:

        async def handle(stream: trio.SocketStream) -> None:
            await stream.receive_some(65536)
            await stream.send_all(ANSWER)

        nursery.start_soon(trio.serve_listeners, handle, [trio.SocketListener(sock)])
        client = Client(dialler(ConsulAddress(socket=str(path)), None, None), host="localhost")
        assert (await client.exchange(Request(method="GET", target="/"), 5)).body == b"ok"
        nursery.cancel_scope.cancel()


async def test_a_socket_that_is_not_there(tmp_path: Path) -> None:
    client = Client(dialler(ConsulAddress(socket=str(tmp_path / "no")), None, None), host="localhost")
    with pytest.raises(RequestFailed, match="unreachable: No such file or directory"):
        await client.exchange(Request(method="GET", target="/"), 5)


async def test_nobody_listens() -> None:
    async with serving() as port:
        pass
    with pytest.raises(RequestFailed, match="unreachable: Connection refused"):
        await ask(settings(), port)


async def test_over_tls_with_the_name_we_are_told(files: Files) -> None:
    told = settings(http_addr="https://x", ca_file=str(files.ca), tls_server_name="server.dc1.consul")
    async with serving(server_context(files)) as port:
        assert await ask(told, port) == b"ok"


async def test_mutual_tls(files: Files) -> None:
    certificate, key = files.issue("client")
    told = settings(
        http_addr="https://x",
        ca_file=str(files.ca),
        tls_server_name="server.dc1.consul",
        client_cert=str(certificate),
        client_key=str(key),
    )
    async with serving(server_context(files, clients=True)) as port:
        assert await ask(told, port) == b"ok"


@pytest.mark.parametrize(
    "flags",
    [
        {"ca_file": "ca"},  # the address's own host, 127.0.0.1, is not in the certificate
        {"tls_server_name": "server.dc1.consul"},  # the machine's authorities did not issue it
        {"ca_file": "ca", "tls_server_name": "other.dc1.consul"},
    ],
)
async def test_a_server_that_cannot_be_trusted(files: Files, flags: dict[str, str]) -> None:
    flags = {name: str(files.ca) if value == "ca" else value for name, value in flags.items()}
    async with serving(server_context(files)) as port:
        with pytest.raises(RequestFailed) as caught:
            await ask(settings(http_addr="https://x", **flags), port)
    assert caught.value.failure is RequestFailure.TLS
    assert "certificate is not accepted" in caught.value.detail


async def test_verification_is_off_only_when_that_was_said(files: Files) -> None:
    resolution = resolve(
        {"sidecar-for": ["web"], "http-addr": ["https://x"]}, {"CONSUL_HTTP_SSL_VERIFY": "0"}
    )
    assert resolution.settings is not None
    async with serving(server_context(files)) as port:
        assert await ask(resolution.settings, port) == b"ok"


async def test_a_server_that_speaks_no_tls(files: Files) -> None:
    told = settings(http_addr="https://x", ca_file=str(files.ca))
    async with serving() as port:
        with pytest.raises(RequestFailed) as caught:
            await ask(told, port)
    assert caught.value.failure is RequestFailure.TLS


@pytest.mark.parametrize("name", ["consul-agent-ca.pem", "ca.crt", "below/ca.cer"])
async def test_a_directory_of_authorities_needs_no_hashed_names(
    files: Files, name: str, tmp_path: Path
) -> None:
    directory = tmp_path / "authorities"
    path = directory / name
    path.parent.mkdir(parents=True)
    path.write_bytes(files.ca.read_bytes())
    (directory / "key.pem").write_bytes(files.issue("client")[1].read_bytes())
    told = settings(http_addr="https://x", ca_path=str(directory), tls_server_name="server.dc1.consul")
    async with serving(server_context(files)) as port:
        assert await ask(told, port) == b"ok"


def test_a_damaged_authority_in_a_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "damaged.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    told = settings(http_addr="https://x", ca_path=str(tmp_path))
    with pytest.raises(Exit, match=r"cannot be used: .*damaged\.pem"):
        consul_of(told, TokenSource(None, None))


def test_plain_http_has_no_tls_settings() -> None:
    assert tls_context(settings()) is None


def test_files_that_are_no_certificates_are_an_error(files: Files, tmp_path: Path) -> None:
    (tmp_path / "junk").write_text("junk")
    with pytest.raises(ssl.SSLError):
        tls_context(settings(http_addr="https://x", ca_file=str(tmp_path / "junk")))


@pytest.mark.parametrize("flaw", ["encrypted", "too small", "of another"])
def test_a_client_key_that_cannot_be_used_is_an_error_and_no_question(files: Files, flaw: str) -> None:
    """An encrypted one would have a terminal asked for its password."""
    certificate, key = files.issue("client")
    if flaw == "encrypted":
        text = serialization.load_pem_private_key(key.read_bytes(), None).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"s3cret"),
        )
        key.write_bytes(text)
    elif flaw == "too small":
        key.write_text(key_pem(rsa.generate_private_key(65537, 1024)))
    else:
        key = files.issue("another")[1]
    told = settings(http_addr="https://x", client_cert=str(certificate), client_key=str(key))
    with pytest.raises(ssl.SSLError):
        tls_context(told)
