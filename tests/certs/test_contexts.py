"""Real handshakes over memory: what OpenSSL refuses, what verify_peer has to, how the contexts are set."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import SSL

from certs.contexts import Contexts, build_contexts, rehearse
from certs.credentials import CredentialsReason, CredentialsRejected
from certs.leaf import MOST_CERTIFICATES
from certs.peer import PeerReason, PeerRejected, verify_peer
from tests.certs.authority import (
    CLIENT_ONLY,
    OTHER_TRUST_DOMAIN,
    SERVER_ONLY,
    Issuer,
    Key,
    Minted,
    new_key,
    service_uri,
)
from tests.certs.fitting import AT, bundle, credentials, handshake, root, unproven_contexts, verified_der

DAY = timedelta(days=1)
TOP = root()
TRUST = bundle(TOP)
ENDS = ("server", "client")


def contexts(minted: Minted, *trusted: Issuer) -> Contexts:
    return build_contexts(credentials(minted, bundle(*trusted)), generation=1)


OURS = contexts(TOP.leaf(service="web"), TOP)


def meet(ours: Contexts, theirs: Contexts, our_end: str) -> SSL.Connection:
    """Handshake with a peer; our connection."""
    if our_end == "server":
        return handshake(ours.server, theirs.client)[0]
    return handshake(theirs.server, ours.client)[1]


@pytest.mark.parametrize("end", ENDS)
def test_both_ends_see_each_other(end: str) -> None:
    theirs = contexts(TOP.leaf(service="db", datacenter="dc2"), TOP)
    peer = verify_peer(verified_der(meet(OURS, theirs, end)), TRUST, AT)
    assert str(peer.id) == service_uri("db", "dc2")


@pytest.mark.parametrize("end", ENDS)
def test_an_expired_peer_completes_the_handshake_and_is_refused_by_name(end: str) -> None:
    theirs = unproven_contexts(TOP.leaf(not_before=AT - 2 * DAY, not_after=AT - DAY), TRUST)
    chain = verified_der(meet(OURS, theirs, end))
    with pytest.raises(PeerRejected) as caught:
        verify_peer(chain, TRUST, AT)
    assert caught.value.reason is PeerReason.EXPIRED


@pytest.mark.parametrize("end", ENDS)
def test_an_expired_intermediate_is_refused_by_name(end: str) -> None:
    second = TOP.intermediate(lifetime=DAY)
    theirs = unproven_contexts(second.leaf(), TRUST)
    chain = verified_der(meet(OURS, theirs, end))
    assert verify_peer(chain, TRUST, AT).id.service == "web"
    with pytest.raises(PeerRejected) as caught:
        verify_peer(chain, TRUST, AT + DAY)
    assert caught.value.reason is PeerReason.EXPIRED


@pytest.mark.parametrize("end", ENDS)
def test_openssl_refuses_a_chain_of_strangers(end: str) -> None:
    stranger = root()
    theirs = unproven_contexts(stranger.leaf(), bundle(stranger, TOP))
    with pytest.raises(SSL.Error, match=r"certificate verify failed|unknown ca"):
        meet(OURS, theirs, end)


def test_openssl_refuses_a_leaf_signed_by_a_leaf() -> None:
    middle = TOP.leaf()
    issuer = Issuer(
        certificate=middle.certificate,
        key=middle.key,
        trust_domain=TOP.trust_domain,
        now=AT,
        chain=(middle.certificate,),
    )
    with pytest.raises(SSL.Error):
        meet(OURS, unproven_contexts(issuer.leaf(), TRUST), "server")


def test_openssl_refuses_a_client_that_may_only_serve() -> None:
    theirs = unproven_contexts(TOP.leaf(usages=SERVER_ONLY), TRUST)
    assert len(verified_der(meet(OURS, theirs, "client"))) == 2
    with pytest.raises(SSL.Error, match=r"certificate verify failed"):
        meet(OURS, theirs, "server")


def test_openssl_refuses_a_server_that_may_only_call() -> None:
    theirs = unproven_contexts(TOP.leaf(usages=CLIENT_ONLY), TRUST)
    assert len(verified_der(meet(OURS, theirs, "server"))) == 2
    with pytest.raises(SSL.Error, match=r"certificate verify failed|unsupported certificate"):
        meet(OURS, theirs, "client")


def bare_client(minimum: int = SSL.TLS1_2_VERSION, maximum: int = SSL.TLS1_3_VERSION) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(minimum)
    context.set_max_proto_version(maximum)
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    return context


def test_openssl_refuses_a_client_without_certificate() -> None:
    with pytest.raises(SSL.Error, match="peer did not return a certificate"):
        handshake(OURS.server, bare_client())


def test_tls_1_1_is_refused() -> None:
    with pytest.raises(SSL.Error, match=r"unsupported protocol|protocol version"):
        handshake(OURS.server, bare_client(SSL.TLS1_1_VERSION, SSL.TLS1_1_VERSION))


def test_cbc_suites_are_refused() -> None:
    context = bare_client(maximum=SSL.TLS1_2_VERSION)
    context.set_cipher_list(b"ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES256-SHA:AES128-SHA")
    with pytest.raises(SSL.Error, match="no shared cipher"):
        handshake(OURS.server, context)


def client_of(minted: Minted, maximum: int) -> SSL.Context:
    context = bare_client(maximum=maximum)
    context.use_privatekey(minted.key)
    context.use_certificate(minted.certificate)
    return context


@pytest.mark.parametrize(
    ("maximum", "suite"),
    [
        (SSL.TLS1_3_VERSION, "TLS_AES_128_GCM_SHA256"),
        (SSL.TLS1_2_VERSION, "ECDHE-ECDSA-AES128-GCM-SHA256"),
    ],
)
def test_aes_128_gcm_comes_first_whatever_the_client_prefers(maximum: int, suite: str) -> None:
    context = client_of(TOP.leaf(), maximum)
    context.set_cipher_list(b"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256")
    context.set_tls13_ciphersuites(b"TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256")
    assert handshake(OURS.server, context)[0].get_cipher_name() == suite


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_no_session_is_resumed(version: ssl.TLSVersion, tmp_path: Path) -> None:
    """Neither by ticket nor by id: identity and verdict are found anew for every connection."""
    minted = TOP.leaf()
    pem_file = tmp_path / "client.pem"  # the standard library takes keys from files only
    pem_file.write_text(minted.cert_pem + minted.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(pem_file)
    first = meet_stdlib(context, None)
    assert not meet_stdlib(context, first.session).session_reused


def meet_stdlib(context: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLObject:
    """A handshake of OURS with a client we did not write, and one byte from us at its end."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server, session=session)
    server = SSL.Connection(OURS.server, None)
    server.set_accept_state()
    for _ in range(5):
        with contextlib.suppress(ssl.SSLWantReadError):
            client.do_handshake()
        if pending := to_server.read():
            server.bio_write(pending)
        with contextlib.suppress(SSL.WantReadError):
            server.do_handshake()
        with contextlib.suppress(SSL.WantReadError):
            to_client.write(server.bio_read(65536))
    server.send(b"x")
    to_client.write(server.bio_read(65536))
    assert client.read(1) == b"x"  # whatever tickets there are have been read before it
    server.shutdown()  # OpenSSL forgets the session of a connection that was not
    return client


def test_nothing_is_sent_that_was_not_received_with_the_leaf() -> None:
    """OpenSSL would add the root by itself, at 15 to 28 % of a handshake's time.

    See docs/decisions.md#no-automatic-chain.
    """
    sent = handshake(OURS.server, OURS.client)[1].get_peer_cert_chain(as_cryptography=True)
    assert sent == [OURS.credentials.leaf.certificate]


@pytest.mark.parametrize("trusts", ["old", "new", "both"])
@pytest.mark.parametrize("end", ENDS)
def test_a_secondary_after_rotation_meets_a_peer_with_either_root(trusts: str, end: str) -> None:
    """The chain is sent as received although it is not in path order, and without OpenSSL completing it."""
    old, new = root(), root()
    minted = new.with_chain(old.cross_sign(new)).intermediate().leaf(service="db", datacenter="dc2")
    known = {"old": (old,), "new": (new,), "both": (new, old)}[trusts]
    theirs = contexts(minted, new, old)
    ours = build_contexts(credentials(known[0].leaf(), bundle(*known)), generation=1)
    connection = meet(ours, theirs, end)
    sent = connection.get_peer_cert_chain(as_cryptography=True)
    assert sent is not None
    assert tuple(sent)[-2:] == minted.extra  # OpenSSL leaves the leaf out at the server's end
    peer = verify_peer(verified_der(connection), bundle(*known), AT)
    assert peer.id.service == "db"


def test_only_roots_are_trusted_not_what_travels_with_our_leaf() -> None:
    """Our own intermediates must not vouch for a peer: that would keep a withdrawn root alive."""
    old, new = root(), root()
    bridge = new.cross_sign(old)  # the old root's key, vouched for by the new root, in our chain only
    ours = contexts(new.with_chain(bridge).leaf(), new)
    theirs = unproven_contexts(old.leaf(), bundle(old, new))
    with pytest.raises(SSL.Error, match="certificate verify failed"):
        meet(ours, theirs, "server")


def test_trust_domain_is_left_to_verify_peer() -> None:
    foreign = Issuer(certificate=TOP.certificate, key=TOP.key, trust_domain=OTHER_TRUST_DOMAIN, now=AT)
    chain = verified_der(meet(OURS, unproven_contexts(foreign.leaf(), TRUST), "server"))
    with pytest.raises(PeerRejected) as caught:
        verify_peer(chain, TRUST, AT)
    assert caught.value.reason is PeerReason.WRONG_TRUST_DOMAIN


def test_each_generation_has_contexts_of_its_own() -> None:
    proven = credentials(TOP.leaf(), TRUST)
    first, second = build_contexts(proven, 1), build_contexts(proven, 2)
    assert (first.generation, second.generation) == (1, 2)
    assert first.server is not second.server
    assert first.credentials is proven


def test_repr_shows_no_key() -> None:
    assert "key" not in repr(OURS).replace("signing_key_id", "")


def test_dates_of_roots_do_not_stop_a_handshake() -> None:
    brief = Issuer.root(now=AT - 400 * DAY, lifetime=DAY)
    theirs = unproven_contexts(brief.at(AT).leaf(), bundle(brief))
    ours = unproven_contexts(brief.at(AT).leaf(), bundle(brief))
    with pytest.raises(PeerRejected) as caught:
        verify_peer(verified_der(meet(ours, theirs, "server")), bundle(brief), AT)
    assert caught.value.reason is PeerReason.EXPIRED


# --- keys that OpenSSL does not take ---

REFUSED_KEYS: dict[str, Callable[[], Key]] = {
    "RSA 1024": partial(rsa.generate_private_key, 65537, 1024),
    "P-192": partial(ec.generate_private_key, ec.SECP192R1()),
    "P-224": partial(ec.generate_private_key, ec.SECP224R1()),  # taken, and then no handshake has a cipher
    "secp256k1": partial(ec.generate_private_key, ec.SECP256K1()),  # likewise
}
GOOD_KEYS: dict[str, Callable[[], Key]] = {
    "RSA 2048": partial(rsa.generate_private_key, 65537, 2048),
    "P-256": new_key,
    "P-384": partial(ec.generate_private_key, ec.SECP384R1()),
    "P-521": partial(ec.generate_private_key, ec.SECP521R1()),
}


@pytest.mark.parametrize("kind", REFUSED_KEYS)
def test_a_key_that_no_handshake_would_carry_is_refused_by_name(kind: str) -> None:
    proven = credentials(TOP.leaf(key=REFUSED_KEYS[kind]()), TRUST)
    with pytest.raises(CredentialsRejected) as caught:
        rehearse(build_contexts(proven, 1))
    assert caught.value.reason is CredentialsReason.REFUSED_BY_OPENSSL
    assert caught.value.detail.startswith("certificate 0d: ")
    assert "no reason" not in caught.value.detail
    meet(OURS, OURS, "server")  # and no error is left in the queue for an innocent one


@pytest.mark.parametrize("kind", GOOD_KEYS)
def test_a_key_that_peers_can_use_is_taken(kind: str) -> None:
    rehearse(build_contexts(credentials(TOP.leaf(key=GOOD_KEYS[kind]()), TRUST), 1))


@pytest.mark.parametrize("kind", ["RSA 1024", "P-192"])
def test_a_root_by_which_nobody_is_verified_is_found_out_before_it_is_in_force(kind: str) -> None:
    weak = Issuer.root(now=AT, key=REFUSED_KEYS[kind]())
    proven = credentials(weak.leaf(), bundle(weak))
    with pytest.raises(CredentialsRejected, match="certificate verify failed"):
        rehearse(build_contexts(proven, 1))


def test_the_longest_chain_is_rehearsed_to_the_end() -> None:
    long = TOP.with_chain(*(TOP.certificate,) * (MOST_CERTIFICATES - 1))
    rehearse(build_contexts(credentials(long.leaf(), TRUST), 1))
