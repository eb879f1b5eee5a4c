"""Credentials as TLS: one server and one client context per generation, never changed afterwards.

No pyOpenSSL callback is set here, nor may one be (docs/decisions.md#no-callbacks-of-pyopenssl): they need
writable and executable memory, which the unit forbids. OpenSSL checks the chain and the purpose,
`peer.verify_peer` the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

from OpenSSL import SSL, crypto

from certs.credentials import Credentials

# openssl/ssl.h and openssl/x509_vfy.h; pyOpenSSL passes them through without names for them.
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
_SESSION_ID_CONTEXT = b"connect-sidecar"  # without one, a peer that offers an old session fails its handshake


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """Both ends of TLS for one generation of credentials."""

    server: SSL.Context
    client: SSL.Context
    credentials: Credentials
    generation: int


def build_contexts(credentials: Credentials, generation: int) -> Contexts:
    """Make both contexts; the peer must show a certificate at either end."""
    return Contexts(
        server=_context(credentials, SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT),
        client=_context(credentials, SSL.VERIFY_PEER),
        credentials=credentials,
        generation=generation,
    )


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
    # In the order received, which is not always path order; NO_AUTO_CHAIN spares a search per handshake.
    for extra in leaf.extra:
        context.add_extra_chain_cert(extra)


def _trust(context: SSL.Context, credentials: Credentials) -> None:
    store = context.get_cert_store()
    if store is None:  # an OpenSSL context always has one; the binding's type allows for none
        raise RuntimeError("the TLS context has no certificate store")
    for root in credentials.bundle.roots:
        store.add_cert(crypto.X509.from_cryptography(root.certificate))
    # Dates are checked for every certificate of the chain right after the handshake, by `verify_peer` and
    # with the agent's clock: so an expired peer has a named reason, and virtual time ages certificates in
    # tests. The check is moved, not dropped: no byte passes between the handshake and `verify_peer`.
    store.set_flags(_VERIFY_NO_CHECK_TIME)
