"""Walks from the chosen instance of an upstream to its app: address, TCP, TLS, identity, intention, far app.

It shows our leaf and sends no byte of an application: to the far app an accepted handshake is a connection
that ends at once. With TLS 1.3 a refusal arrives after the handshake, as an end without a reason; the
intentions with our service as source give it one.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio
from OpenSSL import SSL

from agent.base.address import TcpAddress
from agent.base.clock import Clock
from agent.base.exits import ExitCode
from agent.base.latest import Latest
from agent.net.dial import DialFailed, dial
from agent.net.handshake import HandshakeFailed, HandshakeReason, client_handshake
from agent.outbound.identify import identify, server_name
from agent.outbound.reasons import NotServed, OutboundReason
from agent.outbound.refusal import explained
from agent.overview.stations import Light, Name, Station
from agent.policy.deny_list import NO_ENTRIES, DenyList
from agent.policy.source_intentions import OwnIntentions
from agent.relay.close import reset
from certs.contexts import Contexts
from certs.peer import PeerRejected
from upstreams.endpoints import ExpectedIdentity
from upstreams.reach import Unreachable, doubt, reach
from upstreams.route import Candidate, dialled
from upstreams.spec import WanMode

LOOKS_WRONG = "register tagged_addresses.wan, or see that this address is reached from here"
DIAL_SECONDS = 3.0
HANDSHAKE_SECONDS = 3.0
_TLS_REMEDIES = {
    HandshakeReason.NOT_TLS: "no sidecar is there: correct the registered port, or what forwards to it",
    HandshakeReason.UNTRUSTED_CHAIN: "its roots are not ours: is it of another mesh, or late in a rotation?",
}
REFUSAL_SECONDS = 0.5  # with TLS 1.3 a refusal arrives after our handshake is over


@dataclass(frozen=True, slots=True, kw_only=True)
class Trip:
    """What all ways to one upstream share. `own_intentions` asks Consul, once a far side has broken off."""

    datacenter: str
    wan: WanMode
    contexts: Contexts
    clock: Clock
    own_intentions: Callable[[], Awaitable[OwnIntentions]]
    deny_list: DenyList = NO_ENTRIES


@dataclass(slots=True, kw_only=True)
class Walk:
    """One walk: what it has passed so far."""

    name: str
    passed: list[Station] = field(default_factory=list)
    who: str = "?"
    began: float = 0.0

    def begin(self) -> None:
        """Measure the next station's time from now on."""
        self.began = trio.current_time()

    def green(self, name: Name, text: str, *, timed: bool = True) -> None:
        """Note that a station is passed."""
        self._note(name, Light.GREEN, text, timed=timed)

    def amber(self, name: Name, text: str, remedy: str = "") -> None:
        """Note that a station is passed, and that an operator should look."""
        self._note(name, Light.AMBER, text, timed=True, remedy=remedy)

    def red(self, name: Name, text: str, remedy: str, code: ExitCode) -> None:
        """Note that a station is not passed."""
        self._note(name, Light.RED, text, timed=True, remedy=remedy, code=code)

    def _note(
        self,
        name: Name,
        light: Light,
        text: str,
        *,
        timed: bool,
        remedy: str = "",
        code: ExitCode = ExitCode.CLEAN,
    ) -> None:
        seconds = trio.current_time() - self.began if timed else None
        self.passed.append(
            Station(name=name, light=light, text=text, seconds=seconds, remedy=remedy, code=code)
        )
        self.begin()


async def take(walk: Walk, way: Candidate, trip: Trip, tried: int = 0) -> bool:
    """Take one way; return whether it leads to the far app. `tried`: how many have failed before."""
    try:
        dialling = reach(way.hop, own_datacenter=trip.datacenter, wan=trip.wan)
    except Unreachable as error:
        remedy = "register an address, or tagged_addresses.wan, for that instance"
        walk.red(Name.ADDRESS, str(error), remedy, ExitCode.CONFIGURATION)
        return False
    others = f", after {tried} that failed" if tried else ""
    odd = doubt(way.hop, dialling)
    text = f"{dialled(way, dialling)} of {way}{others}"
    if odd is None or odd.avoided:
        walk.green(Name.ADDRESS, text)
    else:
        walk.amber(Name.ADDRESS, f"{text}; looks wrong ({odd.value})", LOOKS_WRONG)
    try:
        sock = await dial(TcpAddress(dialling.host, dialling.port), DIAL_SECONDS)
    except DialFailed as error:
        remedy = f"see that it runs, and that no firewall or NAT is on the way to {dialling.host}"
        walk.red(Name.TCP, str(error), remedy, ExitCode.FAR_SIDE)
        return False
    walk.green(Name.TCP, "connected")
    try:
        return await _shake_hands(walk, sock, way, trip)
    finally:
        reset(sock)


async def _shake_hands(walk: Walk, sock: socket.socket, way: Candidate, trip: Trip) -> bool:
    contexts = trip.contexts
    expected = way.endpoint.expected
    name = server_name(expected, contexts.credentials.bundle.trust_domain)
    try:
        tls = await client_handshake(sock, contexts.client, name, HANDSHAKE_SECONDS)
    except HandshakeFailed as error:
        remedy = _TLS_REMEDIES.get(error.reason, "see what the log of that sidecar says of us")
        walk.red(Name.TLS, str(error), remedy, ExitCode.FAR_SIDE)
        return False
    walk.green(Name.TLS, cipher_of(tls))
    try:
        peer = identify(tls, expected, Latest(contexts), trip.clock(), Latest(trip.deny_list))
    except (PeerRejected, NotServed) as error:
        remedy = (
            "take it out of our deny_file, if we may call it"
            if error.reason is OutboundReason.DENY_LISTED
            else "another service answers at this address: correct the registration, the NAT or its leaf"
        )
        walk.red(Name.IDENTITY, str(error), remedy, ExitCode.CONFIGURATION)
        return False
    walk.green(Name.IDENTITY, f"{peer.id.service} of {peer.id.datacenter}, as expected", timed=False)
    refusal = await refusal_of(tls, sock)
    await _ask_far_side(walk, expected, refusal, trip)
    return not refusal


async def _ask_far_side(walk: Walk, expected: ExpectedIdentity, refusal: str, trip: Trip) -> None:
    """Pass intention and far app: with TLS 1.3 a refusal comes after the handshake, and gives no reason."""
    if not refusal:
        walk.green(Name.INTENTION, "its sidecar takes the call", timed=False)
        walk.green(Name.FAR_APP, "its sidecar has reached it", timed=False)
        return
    ours = trip.contexts.credentials.leaf.id
    known = await trip.own_intentions()
    why, verdict = explained(known, ours, expected), known.verdict(ours, expected)
    if why.rule:
        remedy = f"allow it: consul intention create -replace -allow {ours.service} {expected.service}"
        walk.red(Name.INTENTION, why.text, remedy, ExitCode.PERMISSION)
        return
    if verdict is None:
        walk.amber(Name.INTENTION, why.text)
    else:
        walk.green(Name.INTENTION, verdict.rule)
    text = f"its sidecar broke off after the handshake ({refusal})"
    remedy = f"see that {expected.service} listens where its sidecar dials it, and that sidecar's log"
    walk.red(Name.FAR_APP, text, remedy, ExitCode.FAR_SIDE)


def cipher_of(tls: SSL.Connection) -> str:
    """Return version, group and suite; pyOpenSSL names the group from 26.0 on."""
    group = getattr(tls, "get_group_name", lambda: None)()
    return ", ".join(filter(None, (tls.get_protocol_version_name(), group, tls.get_cipher_name())))


async def refusal_of(tls: SSL.Connection, sock: socket.socket) -> str:
    """Return how the far side has refused us; empty while it waits for our first byte, or sends its own."""
    with trio.move_on_after(REFUSAL_SECONDS):
        while True:
            try:
                return "" if tls.recv(1) else "closed"
            except SSL.WantReadError:
                await trio.lowlevel.wait_readable(sock)
            except SSL.ZeroReturnError:
                return "closed"
            except SSL.SysCallError as error:
                return str(error.args[-1])
            except SSL.Error as error:
                return "; ".join(text for _, _, text in error.args[0]) or "an alert"
    return ""
