"""Walks from the chosen instance of an upstream to its app: address, TCP, TLS, identity, travel, intention.

It shows our leaf and sends no byte of an application: to the far app an accepted handshake is a connection
that ends at once. With TLS 1.3 a refusal arrives after the handshake, as an end without a reason; the
intentions with our service as source give it one. Where the agent's connections travel in a tunnel, the walk
opens a stream of one too, whose refusal names its reason.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import trio
from OpenSSL import SSL

from agent.base.address import TcpAddress
from agent.base.clock import Clock
from agent.base.exits import ExitCode
from agent.base.latest import Latest
from agent.h2.header_blocks import request_block
from agent.net.dial import DialFailed, dial
from agent.net.handshake import HandshakeFailed, HandshakeReason, client_handshake
from agent.outbound.identify import identify, server_name
from agent.outbound.reasons import NotServed, OutboundReason
from agent.outbound.refusal import explained
from agent.overview.stations import Light, Name, Station
from agent.path.stream import ask_for_stream
from agent.policy.deny_list import NO_ENTRIES, DenyList
from agent.policy.source_intentions import OwnIntentions
from agent.relay.close import reset
from agent.tunnel.ends import FORBIDDEN
from agent.tunnel.sign import marked
from certs.contexts import Contexts
from certs.peer import PeerRejected
from upstreams.endpoints import ExpectedIdentity
from upstreams.reach import DialAddress, Unreachable, doubt, reach
from upstreams.route import Candidate, dialled
from upstreams.spec import TunnelMode, Upstream, WanMode
from upstreams.travel import IN_TUNNEL, Travel, TravelReason, may_tunnel

LOOKS_WRONG = "register tagged_addresses.wan, or see that this address is reached from here"
DIAL_SECONDS = 3.0
HANDSHAKE_SECONDS = 3.0
_TLS_REMEDIES = {
    HandshakeReason.NOT_TLS: "no sidecar is there: correct the registered port, or what forwards to it",
    HandshakeReason.UNTRUSTED_CHAIN: "its roots are not ours: is it of another mesh, or late in a rotation?",
}
OFFERED = "take connect_sidecar_tunnel out of its registration, or set its `tunnel` to auto"
STREAM_SECONDS = 5.0  # the far side dials its app, and then answers
REFUSAL_SECONDS = 0.5  # with TLS 1.3 a refusal arrives after our handshake is over


@dataclass(frozen=True, slots=True, kw_only=True)
class Trip:
    """What all ways to one upstream share. `own_intentions` asks Consul, once a far side has broken off.

    `standing`: by instance, why the running agent makes no tunnel there for now, where it said so.
    """

    datacenter: str
    wan: WanMode
    contexts: Contexts
    clock: Clock
    own_intentions: Callable[[], Awaitable[OwnIntentions]]
    deny_list: DenyList = NO_ENTRIES
    upstream: Upstream
    tunnel: TunnelMode = TunnelMode.NEVER  # of the agent, for all upstreams
    standing: Mapping[str, str] = field(default_factory=dict)


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
    through = way.through_gateway
    how = may_tunnel(trip.upstream, trip.tunnel, way.endpoint, through_gateway=through)
    passed = list(walk.passed)
    reached = await _dial(walk, dialling, way, trip, how)
    if reached is not None:
        return reached
    walk.passed = passed  # by a connection of its own now, as the agent does
    return bool(await _dial(walk, dialling, way, trip, Travel(TravelReason.REFUSED)))


async def _dial(walk: Walk, dialling: DialAddress, way: Candidate, trip: Trip, how: Travel) -> bool | None:
    """Go on from the address; return whether it leads to the far app, None if no tunnel is taken there."""
    try:
        sock = await dial(TcpAddress(dialling.host, dialling.port), DIAL_SECONDS)
    except DialFailed as error:
        remedy = f"see that it runs, and that no firewall or NAT is on the way to {dialling.host}"
        walk.red(Name.TCP, str(error), remedy, ExitCode.FAR_SIDE)
        return False
    walk.green(Name.TCP, "connected")
    try:
        return await _shake_hands(walk, sock, way, trip, how)
    finally:
        reset(sock)


async def _shake_hands(
    walk: Walk, sock: socket.socket, way: Candidate, trip: Trip, how: Travel
) -> bool | None:
    contexts = trip.contexts
    expected = way.endpoint.expected
    name = server_name(expected, contexts.credentials.bundle.trust_domain)
    try:
        sni = marked(name) if how.in_tunnel else name
        tls = await client_handshake(sock, contexts.client, sni, HANDSHAKE_SECONDS)
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
    if how.in_tunnel:
        return await _ask_in_tunnel(walk, tls, sock, way, trip)
    if how.reason is TravelReason.REFUSED:
        known = trip.standing.get(str(way.endpoint), f"{how}; the agent asks again each minute")
        walk.amber(Name.TRAVEL, known, OFFERED)
    else:
        walk.green(Name.TRAVEL, str(how), timed=False)
    refusal = await refusal_of(tls, sock)
    said = f"broke off after the handshake ({refusal})" if refusal else ""
    await _ask_far_side(walk, expected, said, trip)
    return not refusal


async def _ask_in_tunnel(
    walk: Walk, tls: SSL.Connection, sock: socket.socket, way: Candidate, trip: Trip
) -> bool | None:
    """Open a stream of a tunnel; return whether the far app is reached, None if the far side takes none."""
    expected = way.endpoint.expected
    name = server_name(expected, trip.contexts.credentials.bundle.trust_domain)
    block = request_block(f"{name}:443".encode("ascii", "replace"))
    answer = await ask_for_stream(tls, sock, block, STREAM_SECONDS)
    if not answer.greeted:
        return None
    if for_now := trip.standing.get(str(way.endpoint)):
        walk.amber(Name.TRAVEL, f"this walk went {IN_TUNNEL}; the running agent for now: {for_now}")
    else:
        walk.green(Name.TRAVEL, f"{IN_TUNNEL}, and so did this walk")
    if answer.served:
        await _ask_far_side(walk, expected, "", trip)
        return True
    refusal = f"answered {answer.reason}" if answer.reason else "did not answer a stream"
    await _ask_far_side(walk, expected, refusal, trip, forbidden=answer.status == FORBIDDEN)
    return False


async def _ask_far_side(
    walk: Walk, expected: ExpectedIdentity, refusal: str, trip: Trip, *, forbidden: bool = False
) -> None:
    """Pass intention and far app: with TLS 1.3 a refusal comes after the handshake, and gives no reason.

    `forbidden`: the far side has named one, and it is that we may not call.
    """
    if not refusal:
        walk.green(Name.INTENTION, "its sidecar takes the call", timed=False)
        walk.green(Name.FAR_APP, "its sidecar has reached it", timed=False)
        return
    ours = trip.contexts.credentials.leaf.id
    known = await trip.own_intentions()
    why, verdict = explained(known, ours, expected), known.verdict(ours, expected)
    if why.rule or forbidden:
        text = f"its sidecar {refusal}; {why.text}" if forbidden else why.text
        allow = f"allow it: consul intention create -replace -allow {ours.service} {expected.service}"
        remedy = allow if why.rule else "see what the log of that sidecar says of us"
        walk.red(Name.INTENTION, text, remedy, ExitCode.PERMISSION)
        return
    if verdict is None:
        walk.amber(Name.INTENTION, why.text)
    else:
        walk.green(Name.INTENTION, verdict.rule)
    text = f"its sidecar {refusal}"
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
