"""The TLS contexts of credentials: a server's and a client's per generation, never changed.

No pyOpenSSL callback may be set here (docs/decisions.md#no-callbacks-of-pyopenssl): callbacks need writable
and executable memory, which the unit forbids. OpenSSL checks chain and purpose, `peer.verify_peer` everything
else.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from OpenSSL import SSL, crypto

from certs.credentials import Credentials, CredentialsReason, CredentialsRejected

# openssl/ssl.h and openssl/x509_vfy.h; pyOpenSSL passes the values through without names for them.
_MODE_NO_AUTO_CHAIN = 0x8
_VERIFY_NO_CHECK_TIME = 0x200000

_TLS12_SUITES = b":".join(
    (
        b"ECDHE-ECDSA-AES128-GCM-SHA256",
        b"ECDHE-RSA-AES128-GCM-SHA256",
        b"ECDHE-ECDSA-AES256-GCM-SHA384",
        b"ECDHE-RSA-AES256-GCM-SHA384",
        b"ECDHE-ECDSA-CHACHA20-POLY1305",
        b"ECDHE-RSA-CHACHA20-POLY1305",
    )
)
_TLS13_SUITES = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
_OPTIONS = (
    SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE
)
_FLIGHTS = 3  # flights of each end until a mutual TLS 1.3 handshake is over
_FLIGHT_BYTES = 256 << 10  # of one flight, more than any chain may have
_SESSION_ID_CONTEXT = b"connect-sidecar"  # without one, the handshake of a peer that offers a session fails


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """The TLS contexts of one generation of credentials."""

    server: SSL.Context
    client: SSL.Context
    credentials: Credentials
    generation: int


def build_contexts(credentials: Credentials, generation: int) -> Contexts:
    """Make both contexts; either end requires the peer's certificate.

    Raises CredentialsRejected for a key that OpenSSL refuses.
    """
    try:
        return Contexts(
            server=_context(credentials, SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT),
            client=_context(credentials, SSL.VERIFY_PEER),
            credentials=credentials,
            generation=generation,
        )
    except SSL.Error as error:
        raise _refused(credentials, error) from error


def rehearse(contexts: Contexts) -> Contexts:
    """Do a handshake between both contexts in memory, before any peer does. Raises CredentialsRejected.

    OpenSSL accepts into a context what it cannot use later: it has no cipher for a P-224 key, and it verifies
    no certificate under an RSA root of 1,024 bits.
    """
    try:
        _shake_hands(SSL.Connection(contexts.server), SSL.Connection(contexts.client))
    except SSL.Error as error:
        raise _refused(contexts.credentials, error) from error
    return contexts


def _shake_hands(server: SSL.Connection, client: SSL.Connection) -> None:
    server.set_accept_state()
    client.set_connect_state()
    for _ in range(_FLIGHTS):
        for end, other in ((client, server), (server, client)):
            with suppress(SSL.WantReadError):
                end.do_handshake()
            with suppress(SSL.WantReadError):
                other.bio_write(end.bio_read(_FLIGHT_BYTES))
    for end in (client, server):
        end.do_handshake()  # without effect if the handshake is over, else it raises


def _refused(credentials: Credentials, error: SSL.Error) -> CredentialsRejected:
    texts = [text for _, _, text in error.args[0]] if error.args else []
    detail = f"certificate {credentials.leaf.serial}: {'; '.join(texts) or 'OpenSSL gives no reason'}"
    return CredentialsRejected(CredentialsReason.REFUSED_BY_OPENSSL, detail)


def _context(credentials: Credentials, verify: int) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(_TLS12_SUITES)
    context.set_tls13_ciphersuites(_TLS13_SUITES)
    context.set_options(_OPTIONS)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS | _MODE_NO_AUTO_CHAIN)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(_SESSION_ID_CONTEXT)
    context.set_verify(verify)
    _present(context, credentials)
    _trust(context, credentials)
    return context


def _present(context: SSL.Context, credentials: Credentials) -> None:
    leaf = credentials.leaf
    context.use_privatekey(leaf.key)
    context.use_certificate(leaf.certificate)
    # In the order received, which need not be path order; NO_AUTO_CHAIN saves a search per handshake.
    for extra in leaf.extra:
        context.add_extra_chain_cert(extra)


def _trust(context: SSL.Context, credentials: Credentials) -> None:
    store = context.get_cert_store()
    if store is None:  # OpenSSL's contexts always have a store; the binding's type allows None
        raise RuntimeError("the TLS context has no certificate store")
    for root in credentials.bundle.roots:
        store.add_cert(crypto.X509.from_cryptography(root.certificate))
    # OpenSSL checks no dates. `verify_peer` checks those of every certificate right after the handshake, by
    # the agent's clock: an expired peer has a named reason, and virtual time ages certificates in tests. No
    # byte of an application passes between the handshake and `verify_peer`.
    store.set_flags(_VERIFY_NO_CHECK_TIME)
