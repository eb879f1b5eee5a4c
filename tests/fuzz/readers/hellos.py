"""The first bytes of a TLS caller, server name and all: OpenSSL reads them, with the settings we give it.

Nothing comes of them but a handshake that goes on or an error with a name of ours; none is left in OpenSSL's
queue. OpenSSL's own code does not guide the search: this target looks after how we call it.
"""

from __future__ import annotations

from OpenSSL import SSL
from OpenSSL._util import lib

from agent.net.handshake import HandshakeReason, _refused
from certs.bundle import parse_roots
from certs.contexts import build_contexts
from certs.credentials import prove
from certs.leaf import parse_leaf
from tests.certs.authority import Issuer, roots_answer
from tests.fuzz.target import Target

_ROOT = Issuer.root()
_LEAF = _ROOT.leaf()
_CONTEXTS = build_contexts(
    prove(
        parse_leaf(_LEAF.cert_pem, _LEAF.key_pem),
        parse_roots(roots_answer(_ROOT)),
        service="web",
        datacenter="dc1",
        at=_ROOT.now,
    ),
    1,
)


def fuzz_one(data: bytes) -> None:
    """Hear it in one piece."""
    connection = SSL.Connection(_CONTEXTS.server, None)
    connection.set_accept_state()
    if data:
        connection.bio_write(data)
    try:
        connection.do_handshake()
    except SSL.WantReadError:
        pass
    except SSL.Error as error:
        assert _refused(error).reason in HandshakeReason
    else:
        raise AssertionError("a caller without a certificate is through")
    assert not lib.ERR_peek_error(), "an error is left in OpenSSL's queue"


def _hello(server_name: bytes = b"", protocols: tuple[bytes, ...] = ()) -> bytes:
    """What a caller begins with; random in part, and long with its post-quantum share."""
    caller = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
    if server_name:
        caller.set_tlsext_host_name(server_name)
    if protocols:
        caller.set_alpn_protos(list(protocols))
    caller.set_connect_state()
    try:
        caller.do_handshake()
    except SSL.WantReadError:
        return caller.bio_read(65536)
    raise AssertionError("a handshake with nobody is over")


TARGET = Target(
    fuzz_one=fuzz_one,
    seeds=(
        _hello(),
        _hello(b"db.default.dc1.internal.11111111-2222-3333-4444-555555555555.consul"),
        _hello(b"x" * 255, (b"h2", b"http/1.1")),
        b"\x16\x03\x01\0\x05\x01\0\0\x01\0",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x80\x2e\x01\x03\x01",
        b"\x15\x03\x01\0\x02\x02\x28",
    ),
    words=(b"\x16\x03\x01", b"\x16\x03\x03", b"\0\0\0", b"\xff\x01", b"\x00\x2b", b"\x00\x33", b"\x00\x29"),
    longest=4096,
)
